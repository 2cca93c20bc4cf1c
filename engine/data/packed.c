#include "data/packed.h"

#include <endian.h>
#include <string.h>

#include "core/crc32c.h"

#define MAGIC "MPTLPACK"
#define MAGIC_SIZE 8
#define SUMMED 60 /* bytes that the header's own checksum covers */

static uint32_t get32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return le32toh(v);
}

static uint64_t get64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return le64toh(v);
}

static void put32(uint8_t *p, uint32_t v) {
  v = htole32(v);
  memcpy(p, &v, sizeof v);
}

static void put64(uint8_t *p, uint64_t v) {
  v = htole64(v);
  memcpy(p, &v, sizeof v);
}

bool mptl_packed_begins(const uint8_t *bytes) { return memcmp(bytes, MAGIC, MAGIC_SIZE) == 0; }

void mptl_packed_put_header(uint8_t *bytes, const mptl_packed_header *header) {
  memset(bytes, 0, MPTL_PACKED_HEADER_SIZE);
  memcpy(bytes, MAGIC, MAGIC_SIZE);
  put32(bytes + 8, header->version);
  put32(bytes + 12, header->classes);
  put64(bytes + 16, header->counts[0]);
  put64(bytes + 24, header->counts[1]);
  put64(bytes + 32, header->directory_at);
  put64(bytes + 40, header->directory_size);
  put32(bytes + 48, header->directory_crc);
  put32(bytes + SUMMED, mptl_crc32c(0, bytes, SUMMED));
}

bool mptl_packed_get_header(mptl_packed_header *header, const uint8_t *bytes) {
  *header = (mptl_packed_header){
      .version = get32(bytes + 8),
      .classes = get32(bytes + 12),
      .counts = {get64(bytes + 16), get64(bytes + 24)},
      .directory_at = get64(bytes + 32),
      .directory_size = get64(bytes + 40),
      .directory_crc = get32(bytes + 48),
  };
  return get32(bytes + SUMMED) == mptl_crc32c(0, bytes, SUMMED);
}

void mptl_packed_put_entry(uint8_t *bytes, const mptl_packed_entry *entry) {
  put64(bytes, entry->at);
  put32(bytes + 8, entry->size);
  put32(bytes + 12, entry->crc);
  put32(bytes + 16, entry->label);
  put32(bytes + 20, entry->name);
}

mptl_packed_entry mptl_packed_get_entry(const uint8_t *bytes) {
  return (mptl_packed_entry){get64(bytes), get32(bytes + 8), get32(bytes + 12), get32(bytes + 16),
                             get32(bytes + 20)};
}

void mptl_packed_put_text(uint8_t *bytes, uint32_t text) { put32(bytes, text); }

uint32_t mptl_packed_get_text(const uint8_t *bytes) { return get32(bytes); }

bool mptl_packed_printable(const char *name) {
  for (; *name != '\0'; name++)
    if ((unsigned char)*name < 0x20 || *name == 0x7f) return false;
  return true;
}

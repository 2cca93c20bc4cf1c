/* Inside packed files: their layout (mptl/packed.h) as structs, which reader and writer share. */
#ifndef MPTL_DATA_PACKED_H
#define MPTL_DATA_PACKED_H

#include <stdbool.h>
#include <stdint.h>

enum {
  MPTL_PACKED_VERSION = 1,
  MPTL_PACKED_HEADER_SIZE = 64,
  MPTL_PACKED_ENTRY_SIZE = 24,
  MPTL_PACKED_CLASS_SIZE = 4
};

typedef struct mptl_packed_header {
  uint32_t version, classes;
  uint64_t counts[2];      /* numbers of images, by split */
  uint64_t directory_at;   /* bytes from the beginning of the file */
  uint64_t directory_size; /* bytes */
  uint32_t directory_crc;
} mptl_packed_header;

typedef struct mptl_packed_entry {
  uint64_t at; /* bytes from the beginning of the file */
  uint32_t size, crc, label;
  uint32_t name; /* bytes from the beginning of the texts */
} mptl_packed_entry;

/* Whether the bytes begin like a packed file's header, of any version. */
bool mptl_packed_begins(const uint8_t *bytes);

void mptl_packed_put_header(uint8_t *bytes,
                            const mptl_packed_header *header); /* with its own checksum */
bool mptl_packed_get_header(mptl_packed_header *header,
                            const uint8_t *bytes); /* false: the checksum is wrong */
void mptl_packed_put_entry(uint8_t *bytes, const mptl_packed_entry *entry);
mptl_packed_entry mptl_packed_get_entry(const uint8_t *bytes);
void mptl_packed_put_text(uint8_t *bytes, uint32_t text); /* an element of the list of classes */
uint32_t mptl_packed_get_text(const uint8_t *bytes);

/* Whether a name has no control characters: messages must be one line of text. */
bool mptl_packed_printable(const char *name);

#endif

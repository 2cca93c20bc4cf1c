/* Eight bytes at a time, by eight tables ("slicing by 8", Kounavis and Berry 2005): table k has the
 * effect of a byte that k other bytes follow. */
#include "core/crc32c.h"

#include <pthread.h>

#define POLYNOMIAL 0x82f63b78u /* reflected */

static uint32_t tables[8][256];

static void make_tables(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t c = byte;
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
    tables[0][byte] = c;
  }
  for (int k = 1; k < 8; k++)
    for (int byte = 0; byte < 256; byte++)
      tables[k][byte] = tables[k - 1][byte] >> 8 ^ tables[0][tables[k - 1][byte] & 255];
}

static inline uint32_t load_le32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t mptl_crc32c(uint32_t crc, const void *bytes, size_t size) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_tables);
  const uint8_t *p = bytes;
  uint32_t c = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint32_t low = c ^ load_le32(p), high = load_le32(p + 4);
    c = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^
        tables[4][low >> 24] ^ tables[3][high & 255] ^ tables[2][high >> 8 & 255] ^
        tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
  }
  for (; size > 0; size--) c = c >> 8 ^ tables[0][(c ^ *p++) & 255];
  return ~c;
}

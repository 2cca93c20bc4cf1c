/* CRC-32C (Castagnoli), the checksum of packed data sets and checkpoints. */
#ifndef MPTL_CORE_CRC32C_H
#define MPTL_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

/* Extends a checksum: crc is the checksum of the bytes before these, 0 if there are none. The
 * checksum of "123456789" is 0xe3069283. */
MPTL_API uint32_t mptl_crc32c(uint32_t crc, const void *bytes, size_t size);

#endif

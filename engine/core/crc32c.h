/* CRC-32C (Castagnoli), the checksum of packed data sets. */
#ifndef MPTL_CORE_CRC32C_H
#define MPTL_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

/* The checksum of what crc is the checksum of, followed by the bytes; crc is 0 for nothing. "123456789" has 0xe3069283. */
MPTL_API uint32_t mptl_crc32c(uint32_t crc, const void *bytes, size_t size);

#endif

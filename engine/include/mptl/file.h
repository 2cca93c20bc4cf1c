/* Whole files: replaced at once or not at all, read in pieces. Checkpoints rest on this. */
#ifndef MPTL_FILE_H
#define MPTL_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef struct mptl_bytes {
  const void *data;
  size_t size; /* bytes */
} mptl_bytes;

/* Makes path hold the n chunks, one after the other: written to PATH.tmp, synced to the disk, renamed over path, and the directory
 * synced. After a failure (MPTL_EIO, the message names the file and the reason) path is as it was and PATH.tmp is gone. A process
 * with a limit on file sizes should ignore SIGXFSZ, which else kills it before the error can be told. */
MPTL_API mptl_status mptl_file_write(const char *path, size_t n, const mptl_bytes *chunks);

/* Reads exactly size bytes at offset into data. MPTL_EIO when the file cannot be read, MPTL_EDATA when it ends before. */
MPTL_API mptl_status mptl_file_read(const char *path, uint64_t offset, void *data, size_t size);

#endif

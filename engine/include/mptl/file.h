/* Files: replaced at once or not at all, read in pieces, appended to. Checkpoints and the lines of runs rest on this. Every write,
 * sync and close is checked. */
#ifndef MPTL_FILE_H
#define MPTL_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef struct mptl_bytes {
  const void *data;
  size_t size; /* bytes */
} mptl_bytes;

/* Makes path hold the n chunks, one after the other: written to a new file PATH.tmp-NUMBER, synced to the disk, renamed over path,
 * and the directory synced. After a failure (MPTL_EIO, the message names the file and the reason) the new file is gone, and path is as
 * it was; but where it was the directory that could not be synced, path has the chunks. Only a process that is killed leaves a new
 * file. Any number of processes may write a file at a time. A process with a limit on file sizes should ignore SIGXFSZ, which
 * else kills it before the error can be told. */
MPTL_API mptl_status mptl_file_write(const char *path, size_t n, const mptl_bytes *chunks);

/* Opens a file that somebody has named, for reading. Only regular files are opened: a pipe or a device may let its reader wait for ever.
 * size may be NULL. MPTL_EIO, with *fd -1; the message is the reason alone ("No such file or directory", "a pipe, must be a
 * regular file") and does not name the file, which the caller knows. */
MPTL_API mptl_status mptl_file_open(int *fd, uint64_t *size, const char *path);

/* Reads exactly size bytes at offset into data. MPTL_EIO when the file cannot be read, MPTL_EDATA when it ends before. */
MPTL_API mptl_status mptl_file_read(const char *path, uint64_t offset, void *data, size_t size);

/* Reads up to size bytes at offset of an open file, fewer only where it ends. How many, or -1 with errno. */
MPTL_API ptrdiff_t mptl_file_read_some(int fd, uint64_t offset, void *data, size_t size);

/* As mptl_file_read, of a file that is open; path is its name in messages. Who reads a file in several pieces opens it once: it may be replaced by
 * another one meanwhile. */
MPTL_API mptl_status mptl_file_read_from(int fd, const char *path, uint64_t offset, void *data, size_t size);

/* The CRC-32C of exactly size bytes at offset of an open file; errors as above. */
MPTL_API mptl_status mptl_file_checksum(uint32_t *crc, int fd, const char *path, uint64_t offset, uint64_t size);

/* Renames a file or folder whose contents are on the disk, and syncs the folder that it then is in. MPTL_EIO when either fails. */
MPTL_API mptl_status mptl_file_rename(const char *from, const char *to);

/* Brings the names in a folder to the disk. Well on file systems that cannot, and for folders that may not be read. */
MPTL_API mptl_status mptl_folder_sync(const char *path);

/* A file that is appended to, a piece at a time, without a buffer: what append has returned for, the system has. */
typedef struct mptl_appender mptl_appender;

/* Opens path, which is made if need be. A pipe is refused (MPTL_EIO): it could let its writer wait for ever. */
MPTL_API mptl_status mptl_appender_create(mptl_appender **appender, const char *path);

/* Adds the bytes. After a failure (MPTL_EIO) the file is cut back to what it was, where the system lets it be. */
MPTL_API mptl_status mptl_appender_append(mptl_appender *appender, const void *data, size_t size);

/* Returns when all that was appended, and the file's name, is on the disk. */
MPTL_API mptl_status mptl_appender_sync(mptl_appender *appender);

/* Closes the file, once; later calls do nothing. */
MPTL_API mptl_status mptl_appender_close(mptl_appender *appender);

MPTL_API void mptl_appender_destroy(mptl_appender *appender);

#endif

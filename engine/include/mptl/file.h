/* Files: replacing them as a whole or not at all, reading them in pieces, appending to them.
 * Checkpoints and the files of runs are written with these functions. Every write, sync and close
 * is checked. */
#ifndef MPTL_FILE_H
#define MPTL_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef struct mptl_bytes {
  const void *data;
  size_t size; /* bytes */
} mptl_bytes;

/* Replaces the contents of path by the n chunks, one after the other: writes them to a new file
 * PATH.tmp-NUMBER, syncs it to the disk, renames it to path and syncs the directory.
 *
 * After a failure (MPTL_EIO; the message names the file and the reason) the new file is removed and
 * path is unchanged, except that path has the new contents if only the sync of the directory
 * failed. A process that is killed may leave the new file. Several processes may write the same
 * path at the same time. A process with a limit on file sizes should ignore SIGXFSZ, which kills it
 * before it gets the error.
 */
MPTL_API mptl_status mptl_file_write(const char *path, size_t n, const mptl_bytes *chunks);

/* Opens a file for reading. Only regular files are accepted: reading a pipe or a device may never
 * end. The caller closes *fd. size may be NULL. MPTL_EIO sets *fd to -1; the message is only the
 * reason ("No such file or directory", "a pipe, must be a regular file"), the caller adds the
 * file's name. */
MPTL_API mptl_status mptl_file_open(int *fd, uint64_t *size, const char *path);

/* Reads exactly size bytes at offset into data. MPTL_EIO if the file cannot be read, MPTL_EDATA if
 * it is too short. */
MPTL_API mptl_status mptl_file_read(const char *path, uint64_t offset, void *data, size_t size);

/* Reads up to size bytes at offset of an open file, fewer only at its end. Returns the number of
 * bytes, or -1 with errno. */
MPTL_API ptrdiff_t mptl_file_read_some(int fd, uint64_t offset, void *data, size_t size);

/* As mptl_file_read, for an open file; path is its name in messages. To read a file in several
 * pieces, open it once: another file may replace it under its path in between. */
MPTL_API mptl_status mptl_file_read_from(int fd, const char *path, uint64_t offset, void *data,
                                         size_t size);

/* Computes the CRC-32C of exactly size bytes at offset of an open file; errors as above. */
MPTL_API mptl_status mptl_file_checksum(uint32_t *crc, int fd, const char *path, uint64_t offset,
                                        uint64_t size);

/* Renames a file or folder whose contents are on the disk, and syncs the folder of the new name.
 * MPTL_EIO if either fails. */
MPTL_API mptl_status mptl_file_rename(const char *from, const char *to);

/* Syncs the names in a folder to the disk. Succeeds, and does nothing, if the file system cannot do
 * that or the folder may not be read. MPTL_EIO. */
MPTL_API mptl_status mptl_folder_sync(const char *path);

/* A file that is appended to without a buffer: when append returns, the system has the bytes. */
typedef struct mptl_appender mptl_appender;

/* Opens path, and creates the file if it does not exist. MPTL_EIO for a pipe, too: writing to it
 * may never end. MPTL_ENOMEM. */
MPTL_API mptl_status mptl_appender_create(mptl_appender **appender, const char *path);

/* Appends the bytes. After a failure (MPTL_EIO) the file is cut back to its former size, if the
 * system allows it. */
MPTL_API mptl_status mptl_appender_append(mptl_appender *appender, const void *data, size_t size);

/* Syncs everything that was appended, and the file's name, to the disk. */
MPTL_API mptl_status mptl_appender_sync(mptl_appender *appender);

/* Closes the file. Later calls do nothing. MPTL_EIO. */
MPTL_API mptl_status mptl_appender_close(mptl_appender *appender);

MPTL_API void mptl_appender_destroy(
    mptl_appender *appender); /* closes the file, too; NULL is allowed */

#endif

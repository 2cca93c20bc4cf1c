#include "mptl/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

static int write_all(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    data += n;
    size -= (size_t)n;
  }
  return 0;
}

/* 0, or -1 with errno: the file at path holds the chunks and is on the disk. */
static int write_synced(const char *path, size_t n, const mptl_bytes *chunks) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return -1;
  int status = 0;
  for (size_t i = 0; i < n && status == 0; i++) status = write_all(fd, chunks[i].data, chunks[i].size);
  if (status == 0) status = fsync(fd);
  int error = errno;
  if (close(fd) != 0 && status == 0) return -1;
  errno = error;
  return status;
}

/* Makes a rename in the directory of path durable. Not every file system can; the rename itself has been done by then. */
static void sync_directory(const char *path) {
  char copy[PATH_MAX];
  snprintf(copy, sizeof copy, "%s", path);
  int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

int mptl_file_rename(const char *from, const char *to) {
  if (rename(from, to) != 0) return -1;
  sync_directory(to);
  return 0;
}

mptl_status mptl_file_write(const char *path, size_t n, const mptl_bytes *chunks) {
  char temporary[PATH_MAX];
  if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary)
    return mptl_fail(MPTL_EIO, "cannot write %.64s...: %s", path, strerror(ENAMETOOLONG));
  if (write_synced(temporary, n, chunks) != 0 || mptl_file_rename(temporary, path) != 0) {
    int error = errno;
    unlink(temporary);
    return mptl_fail(MPTL_EIO, "cannot write %s: %s", path, strerror(error));
  }
  return MPTL_OK;
}

mptl_status mptl_file_read(const char *path, uint64_t offset, void *data, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return mptl_fail(MPTL_EIO, "cannot read %s: %s", path, strerror(errno));
  size_t done = 0;
  while (done < size) {
    ssize_t n = pread(fd, (char *)data + done, size - done, (off_t)(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      int error = errno;
      close(fd);
      if (n < 0) return mptl_fail(MPTL_EIO, "cannot read %s: %s", path, strerror(error));
      return mptl_fail(MPTL_EDATA, "%s: ends at byte %llu, %llu are needed", path, (unsigned long long)(offset + done),
                       (unsigned long long)(offset + size));
    }
    done += (size_t)n;
  }
  close(fd);
  return MPTL_OK;
}

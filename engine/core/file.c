#include "mptl/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32c.h"

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

/* Creates a new file beside path, whose name no other process uses, on any machine: processes that
 * write the same path do not disturb each other, and the last rename wins. It never opens an
 * existing file or link. -1 with errno. */
static int make_temporary(char temporary[PATH_MAX], const char *path) {
  for (int tries = 0;; tries++) {
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number) return -1;
    if (snprintf(temporary, PATH_MAX, "%s.tmp-%016llx", path, (unsigned long long)number) >=
        PATH_MAX) {
      errno = ENAMETOOLONG;
      return -1;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST || tries == 100) return fd;
  }
}

/* Writes the chunks to fd, syncs it to the disk and closes it. Returns 0, or -1 with errno. */
static int write_synced(int fd, size_t n, const mptl_bytes *chunks) {
  int status = 0;
  for (size_t i = 0; i < n && status == 0; i++)
    status = write_all(fd, chunks[i].data, chunks[i].size);
  if (status == 0) status = fsync(fd);
  int error = errno;
  if (close(fd) != 0 && status == 0) return -1;
  errno = error;
  return status;
}

/* Returns 0, or -1 with errno. */
static int sync_folder(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno == EACCES ? 0 : -1; /* a folder may be writable without being readable */
  int status = fsync(fd), error = errno;
  if (status != 0 && (error == EINVAL || error == ENOTSUP))
    status = 0; /* this file system cannot sync folders */
  if (close(fd) != 0 && status == 0) return -1;
  errno = error;
  return status;
}

/* Syncs the folder that path is in. Returns 0, or -1 with errno. */
static int sync_parent(const char *path) {
  char copy[PATH_MAX];
  if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy) {
    errno = ENAMETOOLONG;
    return -1;
  }
  return sync_folder(dirname(copy));
}

static mptl_status write_failed(const char *path) {
  return mptl_fail(MPTL_EIO, "cannot write %s: %s", path, strerror(errno));
}

mptl_status mptl_folder_sync(const char *path) {
  return sync_folder(path) == 0 ? MPTL_OK : write_failed(path);
}

mptl_status mptl_file_rename(const char *from, const char *to) {
  return rename(from, to) == 0 && sync_parent(to) == 0 ? MPTL_OK : write_failed(to);
}

mptl_status mptl_file_write(const char *path, size_t n, const mptl_bytes *chunks) {
  char temporary[PATH_MAX];
  int fd = make_temporary(temporary, path);
  if (fd < 0 && errno == ENAMETOOLONG)
    return mptl_fail(MPTL_EIO, "cannot write %.64s...: %s", path, strerror(errno));
  if (fd < 0) return write_failed(path);
  mptl_status status =
      write_synced(fd, n, chunks) == 0 ? mptl_file_rename(temporary, path) : write_failed(path);
  if (status != MPTL_OK) unlink(temporary);
  return status;
}

static const char *kind_of(mode_t mode) {
  return S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket" : "a device";
}

struct mptl_appender {
  int fd; /* -1: closed */
  bool name_synced, synced;
  off_t size;
  char path[];
};

mptl_status mptl_appender_create(mptl_appender **appender, const char *path) {
  size_t length = strlen(path) + 1;
  mptl_appender *a = malloc(sizeof *a + length);
  if (a == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory to open it", path);
  memcpy(a->path, path, length);
  a->name_synced = false;
  a->synced = true;
  struct stat about;
  bool is_pipe = stat(path, &about) == 0 && (S_ISFIFO(about.st_mode) || S_ISSOCK(about.st_mode));
  a->fd = is_pipe ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (a->fd < 0 || fstat(a->fd, &about) != 0) {
    mptl_status status = is_pipe
                             ? mptl_fail(MPTL_EIO, "cannot write %s: %s, must be a regular file",
                                         path, kind_of(about.st_mode))
                             : write_failed(path);
    mptl_appender_destroy(a);
    return status;
  }
  a->size = about.st_size;
  *appender = a;
  return MPTL_OK;
}

mptl_status mptl_appender_append(mptl_appender *a, const void *data, size_t size) {
  if (write_all(a->fd, data, size) == 0) {
    a->size += (off_t)size;
    a->synced = false;
    return MPTL_OK;
  }
  mptl_status status = write_failed(a->path);
  if (ftruncate(a->fd, a->size) != 0)
    return status; /* readers ignore an incomplete line at the end */
  return status;
}

mptl_status mptl_appender_sync(mptl_appender *a) {
  if (a->synced) return MPTL_OK;
  if (fsync(a->fd) != 0 || (!a->name_synced && sync_parent(a->path) != 0))
    return write_failed(a->path);
  a->name_synced = a->synced = true;
  return MPTL_OK;
}

mptl_status mptl_appender_close(mptl_appender *a) {
  int fd = a->fd;
  a->fd = -1;
  return fd < 0 || close(fd) == 0 ? MPTL_OK : write_failed(a->path);
}

void mptl_appender_destroy(mptl_appender *a) {
  if (a == NULL) return;
  if (a->fd >= 0) close(a->fd);
  free(a);
}

mptl_status mptl_file_open(int *fd, uint64_t *size, const char *path) {
  struct stat st;
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* so that opening a pipe does not wait */
  if (*fd < 0 || fstat(*fd, &st) != 0) {
    mptl_status status = mptl_fail(MPTL_EIO, "%s", strerror(errno));
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return status;
  }
  if (size != NULL) *size = (uint64_t)st.st_size;
  if (S_ISREG(st.st_mode)) return MPTL_OK;
  close(*fd);
  *fd = -1;
  if (S_ISDIR(st.st_mode)) return mptl_fail(MPTL_EIO, "%s", strerror(EISDIR));
  return mptl_fail(MPTL_EIO, "%s, must be a regular file", kind_of(st.st_mode));
}

ptrdiff_t mptl_file_read_some(int fd, uint64_t offset, void *data, size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = pread(fd, (char *)data + done, size - done, (off_t)(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += (size_t)n;
  }
  return (ptrdiff_t)done;
}

mptl_status mptl_file_read_from(int fd, const char *path, uint64_t offset, void *data,
                                size_t size) {
  ptrdiff_t n = mptl_file_read_some(fd, offset, data, size);
  if (n < 0) return mptl_fail(MPTL_EIO, "cannot read %s: %s", path, strerror(errno));
  if ((size_t)n < size)
    return mptl_fail(MPTL_EDATA, "%s: ends at byte %llu, %llu are needed", path,
                     (unsigned long long)(offset + (size_t)n), (unsigned long long)(offset + size));
  return MPTL_OK;
}

mptl_status mptl_file_read(const char *path, uint64_t offset, void *data, size_t size) {
  int fd;
  mptl_status status = mptl_file_open(&fd, NULL, path);
  if (status != MPTL_OK) return mptl_fail_in(status, "cannot read %s", path);
  status = mptl_file_read_from(fd, path, offset, data, size);
  close(fd);
  return status;
}

mptl_status mptl_file_checksum(uint32_t *crc, int fd, const char *path, uint64_t offset,
                               uint64_t size) {
  enum { PIECE = 1 << 16 };
  char bytes[PIECE];
  *crc = 0;
  while (size > 0) {
    size_t n = size < PIECE ? (size_t)size : PIECE;
    MPTL_TRY(mptl_file_read_from(fd, path, offset, bytes, n));
    *crc = mptl_crc32c(*crc, bytes, n);
    offset += n;
    size -= n;
  }
  return MPTL_OK;
}

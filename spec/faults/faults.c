/* A library to preload (LD_PRELOAD) into a program, to make operations on its files fail. It counts
 * what the program does to files below a folder, open (for writing), write, fsync, rename, close
 * (of a file that was written to) and makes the n-th of these operations fail. For glibc. Files of
 * stdio are counted, too: they become streams whose writes come here.
 *
 * FAULTS_BELOW   the folder, as realpath returns it
 * FAULTS_LOG     a file elsewhere that gets a line for each operation: "write metrics.jsonl"
 * FAULTS_AT      n, from 1
 * FAULTS_KIND    ENOSPC, EIO   the operation fails; close closes the file nevertheless
 *                full          the disk is full from then on: half of this write is made; later
 * writes and new files fail short         half of this write is made, which write(2) may do at any
 * time: no failure kill          the process ends before the operation, by SIGKILL torn the process
 * ends after half of the write power         the process ends before the operation, and everything
 * that was not synced is lost: bytes, and names of new files
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_FDS = 1024, MOST_FILES = 256 };

typedef enum operation_kind { OPEN, WRITE, FSYNC, RENAME, CLOSE } operation_kind;

static const char *const operation_names[] = {"open", "write", "fsync", "rename", "close"};

typedef enum fault_kind {
  NO_FAULT,
  FULL,
  SHORT,
  KILL,
  TORN,
  POWER,
  FAILS_ENOSPC,
  FAILS_EIO
} fault_kind;

static const char *const fault_names[] = {"",     "full",  "short",  "kill",
                                          "torn", "power", "ENOSPC", "EIO"};

typedef struct known_file { /* below the folder, written by this process */
  char path[PATH_MAX];
  off_t synced; /* bytes that survive a loss of power */
  bool name_synced;
} known_file;

static struct {
  pthread_mutex_t lock;
  bool ready;
  fault_kind kind;
  char below[PATH_MAX];
  int log;
  long at, count;
  bool full;
  known_file files[MOST_FILES];
  size_t n_files;
  bool wrote[MOST_FDS]; /* by descriptor: whether something was written since it was opened */
  /* by descriptor: 1 + the index in files; 0 when it is not open for writing */
  int of_fd[MOST_FDS];
  FILE *stream[MOST_FDS]; /* by descriptor: its stream, if it has one */
} faults = {.lock = PTHREAD_MUTEX_INITIALIZER, .log = -1};

static int (*real_open)(const char *, int, ...);
static FILE *(*real_fopen)(const char *, const char *);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_close)(int);
static int (*real_fileno)(FILE *);
static FILE *(*real_fdopen)(int, const char *);

#define REAL(name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)

/* The kind of fault of that name; the program ends if there is none. */
static fault_kind kind_of(const char *name) {
  for (size_t i = 0; i < sizeof fault_names / sizeof *fault_names; i++)
    if (strcmp(fault_names[i], name) == 0) return (fault_kind)i;
  dprintf(STDERR_FILENO, "faults: FAULTS_KIND=%s is unknown\n", name);
  abort();
}

static void prepare(void) {
  if (faults.ready) return;
  faults.ready = true;
  REAL(open), REAL(fopen), REAL(write), REAL(fsync), REAL(rename), REAL(close), REAL(fileno),
      REAL(fdopen);
  const char *below = getenv("FAULTS_BELOW"), *log = getenv("FAULTS_LOG"),
             *at = getenv("FAULTS_AT");
  const char *kind = getenv("FAULTS_KIND");
  snprintf(faults.below, sizeof faults.below, "%s", below ? below : "");
  faults.kind = kind_of(kind ? kind : "");
  faults.at = at ? atol(at) : 0;
  if (log) faults.log = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static void enter(void) {
  pthread_mutex_lock(&faults.lock);
  prepare();
}

static void leave(void) {
  int error = errno;
  pthread_mutex_unlock(&faults.lock);
  errno = error;
}

/* Writes the path without links to full; returns whether it is below the folder. */
static bool is_below(const char *path, char full[PATH_MAX]) {
  char parent[PATH_MAX], name[PATH_MAX];
  size_t length = strlen(faults.below);
  if (length == 0 || strlen(path) >= PATH_MAX) return false;
  if (realpath(path, full) == NULL) { /* it does not exist yet */
    snprintf(parent, sizeof parent, "%s", path);
    snprintf(name, sizeof name, "%s", path);
    if (realpath(dirname(parent), full) == NULL) return false;
    size_t used = strlen(full), room = PATH_MAX - used;
    if (snprintf(full + used, room, "/%s", basename(name)) >= (int)room) return false;
  }
  return strncmp(full, faults.below, length) == 0 && (full[length] == '/' || full[length] == '\0');
}

static known_file *file_of(int fd) {
  return fd >= 0 && fd < MOST_FDS && faults.of_fd[fd] ? &faults.files[faults.of_fd[fd] - 1] : NULL;
}

static known_file *find(const char *path) {
  for (size_t i = 0; i < faults.n_files; i++)
    if (strcmp(faults.files[i].path, path) == 0) return &faults.files[i];
  return NULL;
}

/* Ends the process, after a loss of power without what was not synced. */
static void end(void) {
  if (faults.kind == POWER)
    for (known_file *f = faults.files; f < faults.files + faults.n_files; f++) {
      if (f->path[0] == '\0') continue;
      if (f->name_synced ? truncate(f->path, f->synced) != 0 : unlink(f->path) != 0) continue;
    }
  kill(getpid(), SIGKILL);
  pause();
}

/* Counts an operation. Returns 0 to do it, or the error with which it fails; *half says whether to
 * write only half. */
static int operation(operation_kind kind, const char *path, bool *half) {
  *half = false;
  faults.count++;
  if (faults.log >= 0) {
    const char *inside = path + strlen(faults.below);
    dprintf(faults.log, "%s %s\n", operation_names[kind], inside[0] == '/' ? inside + 1 : ".");
  }
  if (faults.full && (kind == WRITE || kind == OPEN)) return ENOSPC;
  if (faults.count != faults.at) return 0;
  switch (faults.kind) {
    case NO_FAULT:
      return 0;
    case FULL:
      faults.full = true;
      *half = kind == WRITE;
      return 0;
    case SHORT:
    case TORN:
      *half = kind == WRITE;
      return 0;
    case KILL:
    case POWER:
      end();
      return 0;
    case FAILS_ENOSPC:
      return ENOSPC;
    case FAILS_EIO:
      return EIO;
  }
  return 0;
}

/* Opens a file below the folder for writing. */
static int open_known(const char *path, const char *full, int flags, mode_t mode) {
  bool half;
  int error = operation(OPEN, full, &half);
  if (error) return errno = error, -1;
  struct stat about;
  bool existed = stat(full, &about) == 0;
  int fd = real_open(path, flags, mode);
  known_file *f = find(full);
  if (fd < 0 || fd >= MOST_FDS || (!f && faults.n_files == MOST_FILES)) return fd;
  if (!f) {
    f = &faults.files[faults.n_files++];
    snprintf(f->path, sizeof f->path, "%s", full);
    f->synced = existed ? about.st_size : 0;
    f->name_synced = existed;
  }
  if (flags & O_TRUNC) f->synced = 0;
  faults.of_fd[fd] = (int)(f - faults.files) + 1;
  faults.wrote[fd] = false;
  return fd;
}

int open(const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = flags & O_CREAT ? va_arg(list, mode_t) : 0;
  va_end(list);
  char full[PATH_MAX];
  enter();
  int fd = (flags & O_ACCMODE) != O_RDONLY && is_below(path, full)
               ? open_known(path, full, flags, mode)
               : real_open(path, flags, mode);
  leave();
  return fd;
}

/* Writes; the lock must be held. */
static ssize_t write_known(int fd, const void *data, size_t size) {
  known_file *f = file_of(fd);
  if (!f) return real_write(fd, data, size);
  bool half;
  int error = operation(WRITE, f->path, &half);
  if (error) return errno = error, -1;
  faults.wrote[fd] = true;
  ssize_t n = real_write(fd, data, half && size > 1 ? size / 2 : size);
  if (half && faults.kind == TORN) end();
  return n;
}

ssize_t write(int fd, const void *data, size_t size) {
  enter();
  ssize_t n = write_known(fd, data, size);
  leave();
  return n;
}

int fsync(int fd) {
  enter();
  char link[64], full[PATH_MAX] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  bool half, below = is_below(link, full);
  int error = below ? operation(FSYNC, full, &half) : 0;
  int status = error ? (errno = error, -1) : real_fsync(fd);
  struct stat about;
  if (below && status == 0 && fstat(fd, &about) == 0) {
    known_file *f = file_of(fd);
    if (f) f->synced = about.st_size;
    size_t length = strlen(full);
    for (size_t i = 0; S_ISDIR(about.st_mode) && i < faults.n_files; i++) {
      const char *name = strrchr(faults.files[i].path, '/');
      if (name == faults.files[i].path + length && strncmp(faults.files[i].path, full, length) == 0)
        faults.files[i].name_synced = true;
    }
  }
  leave();
  return status;
}

int fdatasync(int fd) { return fsync(fd); }

int rename(const char *from, const char *to) {
  enter();
  char full[PATH_MAX], old[PATH_MAX];
  bool half, below = is_below(to, full) && is_below(from, old);
  int error = below ? operation(RENAME, full, &half) : 0;
  int status = error ? (errno = error, -1) : real_rename(from, to);
  if (below && status == 0) {
    known_file *f = find(old), *replaced = find(full);
    if (replaced) replaced->path[0] = '\0';
    if (f) snprintf(f->path, sizeof f->path, "%s", full);
    if (f)
      f->name_synced =
          true; /* the old file could come back: the same as a loss of power before the rename */
  }
  leave();
  return status;
}

static int close_known(int fd) {
  known_file *f = file_of(fd);
  bool half;
  int error = f && faults.wrote[fd] ? operation(CLOSE, f->path, &half) : 0;
  if (f) faults.of_fd[fd] = 0;
  int status = real_close(fd);
  return error ? (errno = error, -1) : status;
}

int close(int fd) {
  enter();
  int status = close_known(fd);
  leave();
  return status;
}

/* ---- Files of stdio: the C library writes them by internal calls, which cannot be replaced
 * ---- */

static ssize_t write_stream(void *cookie, const char *data, size_t size) {
  ssize_t n = write((int)(intptr_t)cookie, data, size);
  return n < 0 ? 0 : n; /* fopencookie's convention */
}

static int seek_stream(void *cookie, off64_t *offset, int whence) {
  *offset = lseek((int)(intptr_t)cookie, *offset, whence);
  return *offset < 0 ? -1 : 0;
}

static int close_stream(void *cookie) {
  faults.stream[(intptr_t)cookie] = NULL;
  return close((int)(intptr_t)cookie);
}

static FILE *stream_of(int fd, const char *mode) {
  const cookie_io_functions_t calls = {
      .write = write_stream, .seek = seek_stream, .close = close_stream};
  return faults.stream[fd] = fopencookie((void *)(intptr_t)fd, mode, calls);
}

FILE *fopen(const char *path, const char *mode) {
  char full[PATH_MAX];
  enter();
  if ((mode[0] == 'r' && !strchr(mode, '+')) || !is_below(path, full)) {
    FILE *file = real_fopen(path, mode);
    leave();
    return file;
  }
  int flags = O_CLOEXEC | (strchr(mode, '+') ? O_RDWR : O_WRONLY);
  flags |= mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT | O_APPEND : 0;
  int fd = open_known(path, full, flags, 0666);
  leave();
  return fd < 0 ? NULL : stream_of(fd, mode);
}

FILE *fdopen(int fd, const char *mode) {
  enter();
  bool known = file_of(fd) != NULL;
  leave();
  return known ? stream_of(fd, mode) : real_fdopen(fd, mode);
}

FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

int fileno(FILE *file) {
  enter();
  int fd = real_fileno(file);
  for (int i = 0; fd < 0 && i < MOST_FDS; i++)
    if (faults.stream[i] == file) fd = i;
  leave();
  return fd;
}

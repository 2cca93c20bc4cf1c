/* Plans in files:
 *   mptl plan 3, cuDNN 9.19.0, NVRTC 13.0
 *                                    the version of this file format and of the rules for choosing
 *                                    plans, then the libraries
 *   {"deviceName":...}               the device
 *   128 64 32 32 64 32 32 3 3 1 1 1 1 1 1 1, forward, bf16 by bf16, 67108864 bytes
 *   engine 28                        or "refused"
 *   {"engine":...}                   cuDNN's text, or why there is no plan
 *   1b2c3d4e                         CRC-32C of the bytes above, without the last line feed
 * The name of the folder is the checksum of the first two lines, the name of the file the checksum
 * of the third line. */
#include "backend/cuda/dnn_store.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "mptl/file.h"

enum {
  /* Raise it with every change of this format, of dnn_search.c, of dnn_graph.c or of the check of
   * plans. */
  VERSION = 3,
  MOST_BYTES = 64 << 20,
  END_BYTES = 10
};

static const char *const refused = "refused"; /* in place of an engine's name */

struct mptl_dnn_store {
  char folder[PATH_MAX];
  char *head; /* the first two lines of all files in the folder */
};

/* ---- Names ---- */

static bool print_path(char path[PATH_MAX], const char *folder, const char *below) {
  return snprintf(path, PATH_MAX, "%s%s", folder, below) < PATH_MAX;
}

/* Finds the folder of all devices; false: files are not used. */
static bool find_folder(char path[PATH_MAX]) {
  const char *given = getenv("MPTL_CUDA_PLANS"), *cache = getenv("XDG_CACHE_HOME"),
             *home = getenv("HOME");
  if (given != NULL && given[0] != '\0')
    return strcmp(given, "none") != 0 && print_path(path, given, "");
  /* XDG: relative paths are invalid. */
  if (cache != NULL && cache[0] == '/') return print_path(path, cache, "/mptl/plans");
  return home != NULL && home[0] == '/' && print_path(path, home, "/.cache/mptl/plans");
}

mptl_dnn_store *mptl_dnn_store_open(const char *libraries, const char *device) {
  char folder[PATH_MAX], below[16];
  if (!find_folder(folder)) return NULL;
  mptl_dnn_store *s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  bool ok = asprintf(&s->head, "mptl plan %d, %s\n%s\n", VERSION, libraries, device) >= 0;
  if (!ok) s->head = NULL;
  if (ok) snprintf(below, sizeof below, "/%08" PRIx32, mptl_crc32c(0, s->head, strlen(s->head)));
  if (ok && print_path(s->folder, folder, below)) return s;
  mptl_dnn_store_close(s);
  return NULL;
}

void mptl_dnn_store_close(mptl_dnn_store *store) {
  if (store == NULL) return;
  free(store->head);
  free(store);
}

/* The key as a line. */
typedef struct key_line {
  char text[320];
} key_line;

static key_line line_of(const mptl_dnn_key *key) {
  const mptl_conv_shape *s = &key->shape;
  key_line line;
  snprintf(line.text, sizeof line.text,
           "%d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d, %s, %s by %s, %zu bytes\n", s->n,
           s->ic, s->ih, s->iw, s->oc, s->oh, s->ow, s->kh, s->kw, s->sh, s->sw, s->ph, s->pw,
           s->dh, s->dw, s->groups, mptl_pass_name(key->pass), mptl_cuda_type_name(key->first),
           mptl_cuda_type_name(key->second), key->workspace_limit);
  return line;
}

static bool file_of(char path[PATH_MAX], const mptl_dnn_store *store, const key_line *line) {
  char below[16];
  snprintf(below, sizeof below, "/%08" PRIx32, mptl_crc32c(0, line->text, strlen(line->text)));
  return print_path(path, store->folder, below);
}

static void print_end(char end[END_BYTES + 1], uint32_t crc) {
  snprintf(end, END_BYTES + 1, "\n%08" PRIx32 "\n", crc);
}

/* ---- Reading ---- */

/* Moves *at past the expected bytes; false: the bytes are others. */
static bool skip(const char **at, const char *end, const char *expected) {
  size_t n = strlen(expected);
  if ((size_t)(end - *at) < n || memcmp(*at, expected, n) != 0) return false;
  *at += n;
  return true;
}

/* Copies the text from a file's bytes; false: the file is not whole, or is for another key. */
static bool parse(mptl_dnn_text *text, const char *bytes, size_t size, const mptl_dnn_store *store,
                  const key_line *line) {
  if (size < END_BYTES) return false;
  const char *at = bytes, *end = bytes + size - END_BYTES, *feed;
  char expected[END_BYTES + 1];
  if (!skip(&at, end, store->head) || !skip(&at, end, line->text)) return false;
  print_end(expected, mptl_crc32c(0, bytes, size - END_BYTES));
  if (memcmp(end, expected, END_BYTES) != 0) return false;
  feed = memchr(at, '\n', (size_t)(end - at));
  if (feed == NULL || (size_t)(feed - at) >= sizeof text->engine) return false;
  snprintf(text->engine, sizeof text->engine, "%.*s", (int)(feed - at), at);
  text->refused = strcmp(text->engine, refused) == 0;
  text->size = (size_t)(end - feed) - 1;
  text->bytes = malloc(text->size + 1);
  if (text->bytes != NULL) memcpy(text->bytes, feed + 1, text->size);
  return text->bytes != NULL;
}

bool mptl_dnn_store_read(mptl_dnn_text *text, const mptl_dnn_store *store,
                         const mptl_dnn_key *key) {
  char path[PATH_MAX];
  struct stat status;
  if (store == NULL) return false;
  key_line line = line_of(key);
  if (!file_of(path, store, &line) || stat(path, &status) != 0 || !S_ISREG(status.st_mode) ||
      status.st_size > MOST_BYTES)
    return false;
  size_t size = (size_t)status.st_size;
  char *bytes = malloc(size + 1);
  bool ok = bytes != NULL && mptl_file_read(path, 0, bytes, size) == MPTL_OK &&
            parse(text, bytes, size, store, &line);
  free(bytes);
  return ok;
}

/* ---- Writing ---- */

static void make_folders(const char *path) {
  char part[PATH_MAX];
  for (const char *at = strchr(path + 1, '/');; at = strchr(at + 1, '/')) {
    snprintf(part, sizeof part, "%.*s", at != NULL ? (int)(at - path) : PATH_MAX, path);
    mkdir(part, 0700);
    if (at == NULL) return;
  }
}

static bool put(FILE *file, uint32_t *crc, const char *bytes, size_t size) {
  *crc = mptl_crc32c(*crc, bytes, size);
  return fwrite(bytes, 1, size, file) == size;
}

static bool write_file(FILE *file, const mptl_dnn_text *text, const mptl_dnn_store *store,
                       const key_line *line) {
  uint32_t crc = 0;
  char end[END_BYTES + 1];
  const char *engine = text->refused ? refused : text->engine;
  bool ok = put(file, &crc, store->head, strlen(store->head)) &&
            put(file, &crc, line->text, strlen(line->text)) &&
            put(file, &crc, engine, strlen(engine)) && put(file, &crc, "\n", 1) &&
            put(file, &crc, text->bytes, text->size);
  print_end(end, crc);
  return ok && fwrite(end, 1, END_BYTES, file) == END_BYTES;
}

void mptl_dnn_store_write(const mptl_dnn_text *text, const mptl_dnn_store *store,
                          const mptl_dnn_key *key) {
  char path[PATH_MAX], temporary[PATH_MAX];
  if (store == NULL) return;
  key_line line = line_of(key);
  if (!file_of(path, store, &line) || !print_path(temporary, path, ".XXXXXX")) return;
  make_folders(store->folder);
  int fd = mkostemp(temporary, O_CLOEXEC);
  FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
  if (file == NULL && fd >= 0) close(fd);
  bool ok = file != NULL && write_file(file, text, store, &line);
  if (file != NULL && fclose(file) != 0) ok = false;
  if (fd >= 0 && (!ok || rename(temporary, path) != 0)) unlink(temporary);
}

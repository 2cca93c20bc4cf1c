/* Collections of encoded images in a packed file (mptl/packed.h). The directory is kept in memory;
 * an image is read when a caller asks for it. The file is not mapped: if somebody shortened a
 * mapped file, the process would end by SIGBUS instead of getting an error. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "data/images.h"
#include "data/packed.h"
#include "mptl/file.h"
#include "mptl/packed.h"

typedef struct packed {
  mptl_images base;
  int file;               /* descriptor; -1: not open */
  uint64_t size;          /* of the file when it was opened */
  uint8_t *directory;     /* all of it; NULL: not read yet */
  const uint8_t *entries; /* of the split; this and the next pointers are into the directory */
  const uint8_t *classes;
  const char *texts;
} packed;

static mptl_packed_entry entry_of(const mptl_images *images, int64_t i) {
  return mptl_packed_get_entry(((const packed *)images)->entries +
                               (size_t)i * MPTL_PACKED_ENTRY_SIZE);
}

static const char *packed_class_name(const mptl_images *images, int label) {
  const packed *p = (const packed *)images;
  return p->texts + mptl_packed_get_text(p->classes + (size_t)label * MPTL_PACKED_CLASS_SIZE);
}

static int32_t packed_label(const mptl_images *images, int64_t i) {
  return (int32_t)entry_of(images, i).label;
}

static const char *packed_name(const mptl_images *images, int64_t i) {
  return ((const packed *)images)->texts + entry_of(images, i).name;
}

/* Reads size bytes from offset `at` of the file. A file that ends too early is MPTL_EIO, not
 * MPTL_EDATA, so that skipping bad images does not hide it. */
static mptl_status read_bytes(const packed *p, uint8_t *bytes, uint64_t at, size_t size) {
  ptrdiff_t n = mptl_file_read_some(p->file, at, bytes, size);
  if (n < 0) return mptl_fail(MPTL_EIO, "%s", strerror(errno));
  if ((size_t)n < size)
    return mptl_fail(MPTL_EIO,
                     "was cut off while it was open: byte %" PRIu64 " of %" PRIu64 " is not there",
                     at + (size_t)n, p->size);
  return MPTL_OK;
}

static mptl_status packed_read(const mptl_images *images, int64_t i, mptl_encoded *encoded) {
  mptl_packed_entry entry = entry_of(images, i);
  MPTL_TRY(mptl_encoded_reserve(encoded, entry.size));
  MPTL_TRY(read_bytes((const packed *)images, encoded->buffer, entry.at, entry.size));
  uint32_t crc = mptl_crc32c(0, encoded->buffer, entry.size);
  if (crc != entry.crc)
    return mptl_fail(MPTL_EDATA,
                     "damaged: its checksum is %08" PRIx32 ", that of its bytes %08" PRIx32,
                     entry.crc, crc);
  encoded->data = encoded->buffer;
  encoded->size = entry.size;
  return MPTL_OK;
}

static void packed_destroy(mptl_images *images) {
  packed *p = (packed *)images;
  if (p->file >= 0) close(p->file);
  free(p->directory);
  free(p->base.where);
  free(p);
}

static const mptl_images_reader packed_reader = {
    .class_name = packed_class_name,
    .label = packed_label,
    .name = packed_name,
    .read = packed_read,
    .destroy = packed_destroy,
};

static mptl_status open_file(packed *p, const char *path) {
  MPTL_TRY(mptl_file_open(&p->file, &p->size, path));
  if (p->size >= MPTL_PACKED_HEADER_SIZE) return MPTL_OK;
  return mptl_fail(MPTL_EDATA, "%" PRIu64 " bytes, not a packed data set", p->size);
}

static mptl_status check_header(mptl_packed_header *h, const packed *p) {
  uint8_t bytes[MPTL_PACKED_HEADER_SIZE];
  MPTL_TRY(read_bytes(p, bytes, 0, sizeof bytes));
  if (!mptl_packed_begins(bytes)) return mptl_fail(MPTL_EDATA, "not a packed data set");
  bool sound = mptl_packed_get_header(h, bytes);
  if (h->version != MPTL_PACKED_VERSION)
    return mptl_fail(MPTL_EDATA, "a packed data set of version %" PRIu32 ", accepted is %d",
                     h->version, MPTL_PACKED_VERSION);
  if (!sound) return mptl_fail(MPTL_EDATA, "damaged: the header's checksum is wrong");
  if (h->directory_at < MPTL_PACKED_HEADER_SIZE || h->directory_at > UINT64_MAX - h->directory_size)
    return mptl_fail(MPTL_EDATA, "damaged: a directory at byte %" PRIu64, h->directory_at);
  uint64_t size = h->directory_at + h->directory_size;
  if (size > p->size)
    return mptl_fail(MPTL_EDATA, "truncated: %" PRIu64 " bytes of %" PRIu64, p->size, size);
  if (size < p->size)
    return mptl_fail(MPTL_EDATA, "damaged: %" PRIu64 " bytes, must be %" PRIu64, p->size, size);
  return MPTL_OK;
}

/* Reads the directory and finds its parts. *texts_size: bytes of the last part, the texts. */
static mptl_status find_parts(packed *p, uint64_t *texts_size, const mptl_packed_header *h,
                              mptl_split split) {
  uint64_t most = h->directory_size /
                  MPTL_PACKED_ENTRY_SIZE; /* with this limit, the sums below cannot overflow */
  if (h->counts[0] > most || h->counts[1] > most || h->counts[0] > INT32_MAX ||
      h->counts[1] > INT32_MAX || h->classes > INT32_MAX)
    return mptl_fail(MPTL_EDATA,
                     "damaged: %" PRIu64 " and %" PRIu64 " images of %" PRIu32 " classes",
                     h->counts[0], h->counts[1], h->classes);
  uint64_t entries = (h->counts[0] + h->counts[1]) * MPTL_PACKED_ENTRY_SIZE;
  uint64_t used = entries + (uint64_t)h->classes * MPTL_PACKED_CLASS_SIZE;
  if (used >= h->directory_size)
    return mptl_fail(MPTL_EDATA, "damaged: the directory has no room for its parts");
  uint8_t *directory = p->directory = malloc((size_t)h->directory_size);
  if (directory == NULL)
    return mptl_fail(MPTL_ENOMEM, "no memory for a directory of %" PRIu64 " bytes",
                     h->directory_size);
  MPTL_TRY(read_bytes(p, directory, h->directory_at, (size_t)h->directory_size));
  if (mptl_crc32c(0, directory, (size_t)h->directory_size) != h->directory_crc)
    return mptl_fail(MPTL_EDATA, "damaged: the directory's checksum is wrong");
  if (directory[h->directory_size - 1] != 0)
    return mptl_fail(MPTL_EDATA, "damaged: the texts do not end");
  p->entries = directory + (split == MPTL_TEST ? h->counts[0] * MPTL_PACKED_ENTRY_SIZE : 0);
  p->classes = directory + entries;
  p->texts = (const char *)directory + used;
  p->base.count = (int64_t)h->counts[split];
  p->base.classes = (int)h->classes;
  *texts_size = h->directory_size - used;
  return MPTL_OK;
}

/* Checksums find accidental damage only. A file may be made to mislead, so every offset in the
 * directory is checked. */
static mptl_status check_classes(const packed *p, uint64_t texts_size) {
  for (int c = 0; c < p->base.classes; c++) {
    uint32_t at = mptl_packed_get_text(p->classes + (size_t)c * MPTL_PACKED_CLASS_SIZE);
    if (at >= texts_size || !mptl_packed_printable(p->texts + at))
      return mptl_fail(MPTL_EDATA, "damaged: the name of class %d", c);
    if (c > 0 && strcmp(packed_class_name(&p->base, c - 1), p->texts + at) >= 0)
      return mptl_fail(MPTL_EDATA, "damaged: classes %d and %d are not sorted by name", c - 1, c);
  }
  return MPTL_OK;
}

static mptl_status check_entries(const packed *p, const mptl_packed_header *h,
                                 uint64_t texts_size) {
  uint32_t label = 0;
  for (int64_t i = 0; i < p->base.count; i++) {
    mptl_packed_entry e = entry_of(&p->base, i);
    bool inside = e.at >= MPTL_PACKED_HEADER_SIZE && e.at <= h->directory_at &&
                  e.size <= h->directory_at - e.at;
    if (!inside || e.size == 0 || e.size > MPTL_ENCODED_MAX)
      return mptl_fail(MPTL_EDATA,
                       "damaged: image %" PRId64 " is %" PRIu32 " bytes at byte %" PRIu64, i,
                       e.size, e.at);
    if (e.label >= h->classes || e.label < label)
      return mptl_fail(MPTL_EDATA, "damaged: image %" PRId64 " is of class %" PRIu32, i, e.label);
    if (e.name >= texts_size || !mptl_packed_printable(p->texts + e.name))
      return mptl_fail(MPTL_EDATA, "damaged: the name of image %" PRId64, i);
    label = e.label;
  }
  return MPTL_OK;
}

/* Fills in a struct that is zero except for base.reader, base.where and file = -1. */
static mptl_status open_packed(packed *p, const char *path, mptl_split split) {
  mptl_packed_header header;
  uint64_t texts_size = 0;
  MPTL_TRY(open_file(p, path));
  MPTL_TRY(check_header(&header, p));
  MPTL_TRY(find_parts(p, &texts_size, &header, split));
  MPTL_TRY(check_classes(p, texts_size));
  MPTL_TRY(check_entries(p, &header, texts_size));
  if (p->base.count == 0)
    return mptl_fail(MPTL_EDATA, "no %s images in it", split == MPTL_TRAIN ? "training" : "test");
  return MPTL_OK;
}

mptl_status mptl_images_open_packed(mptl_images **images, const char *path, mptl_split split) {
  *images = NULL;
  packed *p = calloc(1, sizeof *p);
  char *where = strdup(path);
  if (p == NULL || where == NULL) {
    free(p);
    free(where);
    return mptl_fail(MPTL_ENOMEM, "%s: no memory", path);
  }
  p->base.reader = &packed_reader;
  p->base.where = where;
  p->file = -1;
  mptl_status status = open_packed(p, path, split);
  if (status == MPTL_OK) {
    *images = &p->base;
    return MPTL_OK;
  }
  packed_destroy(&p->base);
  return mptl_fail_in(status, "%s", path);
}

int mptl_images_packed_classes(const char *path) {
  uint8_t bytes[MPTL_PACKED_HEADER_SIZE];
  mptl_packed_header header;
  int file;
  if (mptl_file_open(&file, NULL, path) != MPTL_OK) return 0;
  ssize_t n = read(file, bytes, sizeof bytes);
  close(file);
  if (n != sizeof bytes || !mptl_packed_begins(bytes) || !mptl_packed_get_header(&header, bytes))
    return 0;
  return header.classes <= INT32_MAX ? (int)header.classes : 0;
}

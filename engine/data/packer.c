/* Writes packed files (mptl/packed.h): images in the order in which they are added, then the sorted
 * directory, and last the header. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/lock.h"
#include "core/memory.h"
#include "data/packed.h"
#include "mptl/file.h"
#include "mptl/packed.h"

#define BUFFER_SIZE (1 << 20) /* bytes in a write */

typedef struct added {     /* an image that was added */
  mptl_packed_entry entry; /* until sort_classes its label is an index into the packer's classes */
  mptl_split split;
} added;

typedef struct added_class {
  uint32_t name;  /* its offset in the texts */
  uint32_t index; /* in the order in which classes were added */
} added_class;

struct mptl_packer {
  char *path, *temporary;
  FILE *file;
  uint64_t at; /* bytes written */
  added *images;
  size_t count, capacity;
  added_class *classes;
  size_t class_count, class_capacity;
  char *texts; /* as in the file */
  size_t texts_size, texts_capacity;
};

static mptl_status no_memory(const mptl_packer *p) {
  return mptl_fail(MPTL_ENOMEM, "%s: no memory for its directory", p->path);
}

static mptl_status write_failed(const mptl_packer *p) {
  return mptl_fail(MPTL_EIO, "cannot write %s: %s", p->temporary, strerror(errno));
}

static mptl_status put_bytes(mptl_packer *p, const void *data, size_t size) {
  if (fwrite(data, 1, size, p->file) != size) return write_failed(p);
  p->at += size;
  return MPTL_OK;
}

/* Appends the three parts as one text; *where: its offset in the texts. */
static mptl_status add_text(mptl_packer *p, uint32_t *where, const char *first,
                            const char *separator, const char *second) {
  size_t size = strlen(first) + strlen(separator) + strlen(second) + 1;
  if (p->texts_size + size > UINT32_MAX)
    return mptl_fail(MPTL_EDATA, "%s: the names are too long together", p->path);
  while (p->texts_capacity < p->texts_size + size)
    if (!mptl_grow(&p->texts, &p->texts_capacity, p->texts_capacity, 1)) return no_memory(p);
  snprintf(p->texts + p->texts_size, size, "%s%s%s", first, separator, second);
  *where = (uint32_t)p->texts_size;
  p->texts_size += size;
  return MPTL_OK;
}

/* Finds the index of a class, and adds the class if it is new. The search begins at the class of
 * the last image, because images of a class often come together. */
static mptl_status find_class(mptl_packer *p, uint32_t *label, const char *name) {
  size_t last = p->count > 0 ? p->images[p->count - 1].entry.label : 0;
  for (size_t i = 0; i < p->class_count; i++) {
    size_t c = (last + i) % p->class_count;
    if (strcmp(p->texts + p->classes[c].name, name) != 0) continue;
    *label = (uint32_t)c;
    return MPTL_OK;
  }
  if (!mptl_grow(&p->classes, &p->class_capacity, p->class_count, sizeof *p->classes))
    return no_memory(p);
  MPTL_TRY(add_text(p, &p->classes[p->class_count].name, name, "", ""));
  p->classes[p->class_count].index = *label = (uint32_t)p->class_count;
  p->class_count++;
  return MPTL_OK;
}

static bool is_file_name(const char *file) {
  size_t size = strlen(file);
  return size > 0 && file[0] != '/' && file[size - 1] != '/' && strstr(file, "//") == NULL &&
         mptl_packed_printable(file);
}

/* Locks the temporary file; *alone is false if another process has it. */
static mptl_status lock_temporary(const mptl_packer *p, int file, bool *alone) {
  struct stat opened, named;
  bool locked = flock(file, LOCK_EX | LOCK_NB) == 0;
  if (!locked && errno != EWOULDBLOCK) { /* nobody holds it: the file system cannot lock it */
    if (!mptl_locks_optional()) return mptl_fail_lock(p->temporary, errno);
    locked = true;
  }
  /* The process that held the lock may have renamed the file before it released the lock: then the
   * open file is a finished data set. */
  *alone = locked && fstat(file, &opened) == 0 && stat(p->temporary, &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
  return MPTL_OK;
}

/* Opens the temporary file, empty, for this process alone. */
static mptl_status open_temporary(mptl_packer *p) {
  bool alone = false;
  int file = open(p->temporary, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
  if (file < 0) return write_failed(p);
  mptl_status status = lock_temporary(p, file, &alone);
  if (status == MPTL_OK && !alone)
    status = mptl_fail(MPTL_EIO, "cannot write %s: another process is writing it", p->temporary);
  if (status == MPTL_OK && (ftruncate(file, 0) != 0 || (p->file = fdopen(file, "w")) == NULL))
    status = write_failed(p);
  if (p->file == NULL) close(file);
  return status;
}

mptl_status mptl_packer_create(mptl_packer **packer, const char *path) {
  *packer = NULL;
  mptl_packer *p = calloc(1, sizeof *p);
  if (p == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory", path);
  p->path = strdup(path);
  if (asprintf(&p->temporary, "%s.tmp", path) < 0) p->temporary = NULL;
  mptl_status status = p->path != NULL && p->temporary != NULL
                           ? MPTL_OK
                           : mptl_fail(MPTL_ENOMEM, "%s: no memory", path);
  if (status == MPTL_OK) status = open_temporary(p);
  if (status == MPTL_OK) {
    static const uint8_t room[MPTL_PACKED_HEADER_SIZE];
    setvbuf(p->file, NULL, _IOFBF, BUFFER_SIZE);
    status = put_bytes(p, room, sizeof room);
  }
  if (status == MPTL_OK)
    *packer = p;
  else
    mptl_packer_destroy(p);
  return status;
}

mptl_status mptl_packer_add(mptl_packer *p, mptl_split split, const char *class_name,
                            const char *file, const void *data, size_t size) {
  if (class_name[0] == '\0' || strchr(class_name, '/') != NULL ||
      !mptl_packed_printable(class_name))
    return mptl_fail(MPTL_EINVAL,
                     "the name of the class: must not be empty or have a / or control characters");
  if (!is_file_name(file))
    return mptl_fail(
        MPTL_EINVAL,
        "the image's name: must not be empty, have an empty part or control characters");
  if (size == 0 || size > MPTL_ENCODED_MAX)
    return mptl_fail(MPTL_EINVAL, "%s/%s: %zu bytes, accepted are 1 to %zu", class_name, file, size,
                     MPTL_ENCODED_MAX);
  added image = {.entry = {.at = p->at, .size = (uint32_t)size, .crc = mptl_crc32c(0, data, size)},
                 .split = split};
  if (!mptl_grow(&p->images, &p->capacity, p->count, sizeof *p->images)) return no_memory(p);
  MPTL_TRY(find_class(p, &image.entry.label, class_name));
  MPTL_TRY(add_text(p, &image.entry.name, class_name, "/", file));
  MPTL_TRY(put_bytes(p, data, size));
  p->images[p->count++] = image;
  return MPTL_OK;
}

/* ---- The directory ---- */

static int by_name(const void *a, const void *b, void *texts) {
  return strcmp((char *)texts + ((const added_class *)a)->name,
                (char *)texts + ((const added_class *)b)->name);
}

/* Sorts the classes by name, and makes the labels of the images indices into the sorted list. */
static mptl_status sort_classes(mptl_packer *p) {
  uint32_t *sorted = malloc(p->class_count * sizeof *sorted); /* index as added -> sorted index */
  if (sorted == NULL) return no_memory(p);
  qsort_r(p->classes, p->class_count, sizeof *p->classes, by_name, p->texts);
  for (size_t c = 0; c < p->class_count; c++) sorted[p->classes[c].index] = (uint32_t)c;
  for (size_t i = 0; i < p->count; i++) p->images[i].entry.label = sorted[p->images[i].entry.label];
  free(sorted);
  return MPTL_OK;
}

/* The order of images in the directory: by split, class, name. */
static int by_order(const void *a, const void *b, void *texts) {
  const added *x = a, *y = b;
  if (x->split != y->split) return x->split < y->split ? -1 : 1;
  if (x->entry.label != y->entry.label) return x->entry.label < y->entry.label ? -1 : 1;
  return strcmp((char *)texts + x->entry.name, (char *)texts + y->entry.name);
}

static mptl_status fail_untrained(const mptl_packer *p) {
  return mptl_fail(MPTL_EDATA, "%s: no training images were added, at least one is needed",
                   p->path);
}

/* Checks the sorted images: each class must have training images, and no name may appear twice in a
 * split. in_training has one element for each class, all false. */
static mptl_status check_images(const mptl_packer *p, bool *in_training) {
  if (p->images[0].split != MPTL_TRAIN) return fail_untrained(p);
  for (size_t i = 0; i < p->count; i++) {
    const added *image = &p->images[i];
    const char *name = p->texts + image->entry.name,
               *set = image->split == MPTL_TRAIN ? "training" : "test";
    if (i > 0 && by_order(image - 1, image, p->texts) == 0)
      return mptl_fail(MPTL_EDATA, "%s: two images of the %s set are named %s", p->path, set, name);
    if (image->split == MPTL_TRAIN)
      in_training[image->entry.label] = true;
    else if (!in_training[image->entry.label])
      return mptl_fail(MPTL_EDATA,
                       "%s: the test set's %s is of a class that the training set has not", p->path,
                       name);
  }
  return MPTL_OK;
}

static mptl_status sort_images(mptl_packer *p) {
  if (p->count == 0) return fail_untrained(p);
  bool *in_training = calloc(p->class_count, sizeof *in_training);
  if (in_training == NULL) return no_memory(p);
  mptl_status status = sort_classes(p);
  if (status == MPTL_OK) {
    qsort_r(p->images, p->count, sizeof *p->images, by_order, p->texts);
    status = check_images(p, in_training);
  }
  free(in_training);
  return status;
}

/* Writes bytes of the directory and adds them to its checksum. */
static mptl_status put_directory(mptl_packer *p, mptl_packed_header *h, const void *data,
                                 size_t size) {
  h->directory_crc = mptl_crc32c(h->directory_crc, data, size);
  h->directory_size += size;
  return put_bytes(p, data, size);
}

static mptl_status write_directory(mptl_packer *p, mptl_packed_header *h) {
  uint8_t bytes[MPTL_PACKED_ENTRY_SIZE];
  *h = (mptl_packed_header){
      .version = MPTL_PACKED_VERSION, .classes = (uint32_t)p->class_count, .directory_at = p->at};
  for (size_t i = 0; i < p->count; i++) {
    h->counts[p->images[i].split]++;
    mptl_packed_put_entry(bytes, &p->images[i].entry);
    MPTL_TRY(put_directory(p, h, bytes, sizeof bytes));
  }
  for (size_t c = 0; c < p->class_count; c++) {
    mptl_packed_put_text(bytes, p->classes[c].name);
    MPTL_TRY(put_directory(p, h, bytes, MPTL_PACKED_CLASS_SIZE));
  }
  return put_directory(p, h, p->texts, p->texts_size);
}

static mptl_status write_header(mptl_packer *p, const mptl_packed_header *h) {
  uint8_t bytes[MPTL_PACKED_HEADER_SIZE];
  mptl_packed_put_header(bytes, h);
  if (fseek(p->file, 0, SEEK_SET) != 0) return write_failed(p);
  return put_bytes(p, bytes, sizeof bytes);
}

mptl_status mptl_packer_finish(mptl_packer *p) {
  mptl_packed_header header;
  if (ferror(p->file))
    return mptl_fail(MPTL_EIO, "cannot write %s: an image could not be written", p->temporary);
  MPTL_TRY(sort_images(p));
  MPTL_TRY(write_directory(p, &header));
  MPTL_TRY(write_header(p, &header));
  if (fflush(p->file) != 0 || fsync(fileno(p->file)) != 0) return write_failed(p);
  MPTL_TRY(mptl_file_rename(p->temporary, p->path));
  free(p->temporary);
  p->temporary = NULL;  /* nothing is left to remove */
  FILE *file = p->file; /* open, and so locked, until after the rename */
  p->file = NULL;
  if (fclose(file) != 0)
    return mptl_fail(MPTL_EIO, "cannot write %s: %s", p->path, strerror(errno));
  return MPTL_OK;
}

void mptl_packer_destroy(mptl_packer *p) {
  if (p == NULL) return;
  if (p->file != NULL) {
    if (p->temporary != NULL) unlink(p->temporary);
    fclose(p->file);
  }
  free(p->path);
  free(p->temporary);
  free(p->images);
  free(p->classes);
  free(p->texts);
  free(p);
}

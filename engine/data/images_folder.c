/* A folder of images: DIR/train/CLASS/FILE and DIR/val/CLASS/FILE. Opening it lists the files; a
 * file is read when a caller asks for its image. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "data/images.h"
#include "mptl/file.h"

typedef struct names { /* a list of strings, each from malloc */
  char **list;
  int64_t count;
  size_t capacity;
} names;

typedef struct folder {
  mptl_images base;
  int root;        /* the split's directory, open */
  names classes;   /* sorted */
  names files;     /* "CLASS/FILE", sorted by class, then by file */
  int64_t *firsts; /* [classes + 1]: the first file of each class, then the number of files */
} folder;

static const char *const split_dirs[] = {"train", "val"};

/* Adds a string from malloc, which the list then owns; NULL means that there was no memory. */
static mptl_status names_add(names *n, char *text) {
  if (text == NULL || !mptl_grow(&n->list, &n->capacity, (size_t)n->count, sizeof *n->list)) {
    free(text);
    return mptl_fail(MPTL_ENOMEM, "no memory for the names of images");
  }
  n->list[n->count++] = text;
  return MPTL_OK;
}

static void names_free(names *n) {
  for (int64_t i = 0; i < n->count; i++) free(n->list[i]);
  free(n->list);
  *n = (names){0};
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(names *n, int64_t from) {
  if (n->count > from) qsort(n->list + from, (size_t)(n->count - from), sizeof *n->list, by_name);
}

static bool is_directory(int dir, const struct dirent *entry) {
  struct stat st;
  if (entry->d_type == DT_DIR) return true;
  if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) return false;
  return fstatat(dir, entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

static bool is_image(const char *name) {
  const char *end = strrchr(name, '.');
  return end != NULL && (strcasecmp(end, ".jpeg") == 0 || strcasecmp(end, ".jpg") == 0);
}

/* Appends entries of the directory dir to found, sorted, and closes dir. class_name NULL: the
 * directories (classes); else the images, as "CLASS/FILE". */
static mptl_status list_directory(names *found, int dir, const char *class_name) {
  DIR *stream = fdopendir(dir);
  if (stream == NULL) {
    close(dir);
    return mptl_fail(MPTL_EIO, "%s", strerror(errno));
  }
  int64_t from = found->count;
  mptl_status status = MPTL_OK;
  const struct dirent *entry;
  while (status == MPTL_OK && (errno = 0, entry = readdir(stream)) != NULL) {
    if (entry->d_name[0] == '.') continue;
    if (class_name == NULL) {
      if (is_directory(dir, entry)) status = names_add(found, strdup(entry->d_name));
    } else if (is_image(entry->d_name) && entry->d_type != DT_DIR) {
      char *path;
      if (asprintf(&path, "%s/%s", class_name, entry->d_name) < 0) path = NULL;
      status = names_add(found, path);
    }
  }
  if (status == MPTL_OK && errno != 0) status = mptl_fail(MPTL_EIO, "%s", strerror(errno));
  closedir(stream);
  names_sort(found, from);
  return status;
}

/* Opens the directory `name` inside the directory parent (or AT_FDCWD); -1 with errno. */
static int open_directory(int parent, const char *name) {
  return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Opens the directory of a split as *root, which the caller closes, and lists its classes. */
static mptl_status list_classes(names *classes, int *root, const char *dir, mptl_split split) {
  char *path;
  if (asprintf(&path, "%s/%s", dir, split_dirs[split]) < 0)
    return mptl_fail(MPTL_ENOMEM, "%s: no memory for its path", dir);
  *root = open_directory(AT_FDCWD, path);
  int again = *root >= 0 ? open_directory(*root, ".") : -1;
  mptl_status status =
      again < 0 ? mptl_fail(MPTL_EIO, "%s", strerror(errno)) : list_directory(classes, again, NULL);
  if (status == MPTL_OK && classes->count == 0)
    status = mptl_fail(
        MPTL_EDATA, "no directories in it, must hold one for each class, with the class's images");
  if (status != MPTL_OK) mptl_fail_in(status, "%s", path);
  free(path);
  return status;
}

/* MPTL_EDATA if val has a class that train does not have. */
static mptl_status check_subset(const names *val, const names *classes, const char *dir) {
  for (int64_t i = 0; i < val->count; i++) {
    if (bsearch(&val->list[i], classes->list, (size_t)classes->count, sizeof *classes->list,
                by_name) == NULL)
      return mptl_fail(MPTL_EDATA,
                       "%s/val/%s: no class of that name in %s/train, which has %lld: %s to %s",
                       dir, val->list[i], dir, (long long)classes->count, classes->list[0],
                       classes->list[classes->count - 1]);
  }
  return MPTL_OK;
}

/* Lists the images of every class. val need not have every class. */
static mptl_status list_images(folder *f, const char *dir, mptl_split split) {
  f->firsts = calloc((size_t)f->classes.count + 1, sizeof *f->firsts);
  if (f->firsts == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory for its classes", dir);
  for (int64_t c = 0; c < f->classes.count; c++) {
    const char *name = f->classes.list[c];
    int class_dir = open_directory(f->root, name);
    mptl_status status = MPTL_OK;
    if (class_dir >= 0)
      status = list_directory(&f->files, class_dir, name);
    else if (errno != ENOENT || split == MPTL_TRAIN)
      status = mptl_fail(MPTL_EIO, "%s", strerror(errno));
    if (status == MPTL_OK && split == MPTL_TRAIN && f->files.count == f->firsts[c])
      status = mptl_fail(MPTL_EDATA, "no images in it, files must be named *.JPEG or *.jpg");
    if (status != MPTL_OK) return mptl_fail_in(status, "%s/%s/%s", dir, split_dirs[split], name);
    f->firsts[c + 1] = f->files.count;
  }
  if (f->files.count == 0)
    return mptl_fail(MPTL_EDATA, "%s/%s: no images in it, must hold CLASS/*.JPEG", dir,
                     split_dirs[split]);
  if (f->files.count > INT32_MAX)
    return mptl_fail(MPTL_EDATA, "%s/%s: %lld images, at most %d are accepted", dir,
                     split_dirs[split], (long long)f->files.count, INT32_MAX);
  return MPTL_OK;
}

static const char *folder_class_name(const mptl_images *images, int label) {
  return ((const folder *)images)->classes.list[label];
}

static int32_t folder_label(const mptl_images *images, int64_t i) {
  const int64_t *firsts = ((const folder *)images)->firsts;
  int low = 0, high = images->classes; /* firsts[low] <= i < firsts[high] */
  while (high - low > 1) {
    int middle = low + (high - low) / 2;
    if (firsts[middle] <= i)
      low = middle;
    else
      high = middle;
  }
  return low;
}

static const char *folder_name(const mptl_images *images, int64_t i) {
  return ((const folder *)images)->files.list[i];
}

/* Reads all of an open file. */
static mptl_status read_all(int file, mptl_encoded *encoded) {
  struct stat st;
  if (fstat(file, &st) != 0) return mptl_fail(MPTL_EIO, "%s", strerror(errno));
  if (!S_ISREG(st.st_mode)) return mptl_fail(MPTL_EIO, "not a regular file");
  MPTL_TRY(mptl_encoded_reserve(encoded, (uint64_t)st.st_size));
  size_t size = (size_t)st.st_size;
  ptrdiff_t n = mptl_file_read_some(file, 0, encoded->buffer, size);
  if (n < 0) return mptl_fail(MPTL_EIO, "%s", strerror(errno));
  if ((size_t)n < size) return mptl_fail(MPTL_EIO, "became shorter while it was read");
  encoded->data = encoded->buffer;
  encoded->size = size;
  return MPTL_OK;
}

static mptl_status folder_read(const mptl_images *images, int64_t i, mptl_encoded *encoded) {
  const folder *f = (const folder *)images;
  int file = openat(f->root, f->files.list[i],
                    O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe must not wait */
  if (file < 0) return mptl_fail(MPTL_EIO, "%s", strerror(errno));
  mptl_status status = read_all(file, encoded);
  close(file);
  return status;
}

static void folder_destroy(mptl_images *images) {
  folder *f = (folder *)images;
  if (f->root >= 0) close(f->root);
  names_free(&f->classes);
  names_free(&f->files);
  free(f->firsts);
  free(f->base.where);
  free(f);
}

static const mptl_images_reader folder_reader = {
    .class_name = folder_class_name,
    .label = folder_label,
    .name = folder_name,
    .read = folder_read,
    .destroy = folder_destroy,
};

/* Fills in the folder. Only base.reader and root = -1 have been set. */
static mptl_status open_folder(folder *f, const char *dir, mptl_split split) {
  if (asprintf(&f->base.where, "%s/%s", dir, split_dirs[split]) < 0) {
    f->base.where = NULL;
    return mptl_fail(MPTL_ENOMEM, "%s: no memory for its path", dir);
  }
  MPTL_TRY(list_classes(&f->classes, &f->root, dir, MPTL_TRAIN));
  if (split == MPTL_TEST) {
    close(f->root);
    names val = {0};
    mptl_status status = list_classes(&val, &f->root, dir, MPTL_TEST);
    if (status == MPTL_OK) status = check_subset(&val, &f->classes, dir);
    names_free(&val);
    if (status != MPTL_OK) return status;
  }
  MPTL_TRY(list_images(f, dir, split));
  f->base.count = f->files.count;
  f->base.classes = (int)f->classes.count;
  return MPTL_OK;
}

mptl_status mptl_images_open_folder(mptl_images **images, const char *dir, mptl_split split) {
  *images = NULL;
  folder *f = calloc(1, sizeof *f);
  if (f == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory", dir);
  f->base.reader = &folder_reader;
  f->root = -1;
  mptl_status status = open_folder(f, dir, split);
  if (status == MPTL_OK)
    *images = &f->base;
  else
    folder_destroy(&f->base);
  return status;
}

int mptl_images_folder_classes(const char *dir) {
  int count = 0;
  for (int split = MPTL_TRAIN; split <= MPTL_TEST; split++) {
    names classes = {0};
    int root = -1;
    bool found = list_classes(&classes, &root, dir, (mptl_split)split) == MPTL_OK;
    if (split == MPTL_TRAIN) count = (int)classes.count;
    if (root >= 0) close(root);
    names_free(&classes);
    if (!found) return 0;
  }
  return count;
}

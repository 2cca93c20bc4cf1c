/* CIFAR-10 and CIFAR-100 in their binary layout (Krizhevsky, "Learning multiple layers of features
 * from tiny images", 2009). An entry is an image with its label bytes; the publisher's page, and so
 * the messages, call it a record. */
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/dataset.h"
#include "mptl/file.h"

#define ENTRIES_A_READ 256
#define IMAGE_BYTES (MPTL_IMAGE_CHANNELS * MPTL_CIFAR_SIDE * MPTL_CIFAR_SIDE)
#define FILE_PATH_MAX (PATH_MAX + NAME_MAX + 2)

typedef struct cifar_layout {
  const char *name, *subdir;
  int classes, label_bytes;       /* the last label byte is the class */
  const char *patterns[2][2];     /* by split: the first pattern that matches a file is used */
  const char *names, *first_name; /* the published set's file of class names, and its first line */
  int published_files;            /* numbered training files of the published set */
  int64_t published[2];           /* images of the published set, by split */
} cifar_layout;

static const cifar_layout layouts[] = {
    {"CIFAR-10",
     "cifar-10-batches-bin",
     10,
     1,
     {{"data_batch_*.bin", "train.bin"}, {"test_batch.bin", "test.bin"}},
     "batches.meta.txt",
     "airplane",
     5,
     {50000, 10000}},
    {"CIFAR-100",
     "cifar-100-binary",
     100,
     2,
     {{"train.bin", "data_batch_*.bin"}, {"test.bin", "test_batch.bin"}},
     "fine_label_names.txt",
     "apple",
     0,
     {50000, 10000}},
};

typedef struct file_list {
  char dir[PATH_MAX];
  struct dirent **files; /* in the order of their numbers: data_batch_2 before data_batch_10 */
  int count;
} file_list;

static size_t entry_size(const cifar_layout *layout) {
  return (size_t)layout->label_bytes + IMAGE_BYTES;
}

static void free_list(file_list *list) {
  for (int i = 0; i < list->count; i++) free(list->files[i]);
  free(list->files);
  list->files = NULL;
  list->count = 0;
}

static mptl_status find_layout(const cifar_layout **found, int classes) {
  for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
    *found = &layouts[i];
    if (layouts[i].classes == classes) return MPTL_OK;
  }
  return mptl_fail(MPTL_EINVAL, "classes: %d, accepted are 10 (CIFAR-10) and 100 (CIFAR-100)",
                   classes);
}

/* Removes the files that do not match the pattern, and returns how many match. If there are none,
 * the list does not change. */
static int keep_matching(file_list *list, const char *pattern) {
  int kept = 0;
  for (int i = 0; i < list->count; i++) kept += fnmatch(pattern, list->files[i]->d_name, 0) == 0;
  if (kept == 0) return 0;
  kept = 0;
  for (int i = 0; i < list->count; i++) {
    if (fnmatch(pattern, list->files[i]->d_name, 0) == 0)
      list->files[kept++] = list->files[i];
    else
      free(list->files[i]);
  }
  list->count = kept;
  return kept;
}

/* The size of file i of the list; -1 if it is not a regular file. */
static off_t file_size(const file_list *list, int i) {
  char path[FILE_PATH_MAX];
  struct stat st;
  snprintf(path, sizeof path, "%s/%s", list->dir, list->files[i]->d_name);
  return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? st.st_size : -1;
}

/* Whether the files have whole entries of another layout and not of this one: the two data sets
 * share some file names. */
static bool holds_another(const file_list *list, const cifar_layout *layout) {
  for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++) {
    int fitting = 0;
    for (int i = 0; i < list->count; i++) {
      off_t size = file_size(list, i);
      fitting += size > 0 && size % (off_t)entry_size(layout) != 0 &&
                 size % (off_t)entry_size(&layouts[l]) == 0;
    }
    if (fitting == list->count) return true;
  }
  return false;
}

/* Lists the files of the split in list->dir. list->count is 0 if the directory does not exist or
 * has none of them. */
static mptl_status list_files(file_list *list, const cifar_layout *layout, mptl_split split) {
  list->files = NULL;
  list->count = scandir(list->dir, &list->files, NULL, versionsort);
  if (list->count < 0) {
    list->count = 0;
    if (errno == ENOENT || errno == ENOTDIR) return MPTL_OK;
    return mptl_fail(MPTL_EIO, "%s: %s", list->dir, strerror(errno));
  }
  const char *const *patterns = layout->patterns[split];
  bool found = keep_matching(list, patterns[0]) > 0 || keep_matching(list, patterns[1]) > 0;
  if (!found || holds_another(list, layout)) free_list(list);
  return MPTL_OK;
}

/* Looks in dir, then in its usual subdirectory. */
static mptl_status find_files(file_list *list, const char *dir, const cifar_layout *layout,
                              mptl_split split) {
  list->files = NULL;
  list->count = 0;
  if (dir[0] == '\0')
    return mptl_fail(MPTL_EINVAL, "data directory: an empty path, must name a directory");
  size_t longest = sizeof list->dir - strlen(layout->subdir) - 2;
  if (strlen(dir) > longest)
    return mptl_fail(MPTL_EINVAL,
                     "data directory: a path of %zu characters, at most %zu are accepted",
                     strlen(dir), longest);
  snprintf(list->dir, sizeof list->dir, "%s", dir);
  MPTL_TRY(list_files(list, layout, split));
  if (list->count > 0) return MPTL_OK;
  snprintf(list->dir, sizeof list->dir, "%s/%s", dir, layout->subdir);
  return list_files(list, layout, split);
}

mptl_status mptl_dataset_find_cifar(char *found, size_t size, const char *dir, int classes,
                                    mptl_split split) {
  const cifar_layout *layout;
  file_list list;
  MPTL_TRY(find_layout(&layout, classes));
  MPTL_TRY(find_files(&list, dir, layout, split));
  int length = snprintf(found, size, "%s", list.count > 0 ? list.dir : "");
  free_list(&list);
  if (length < 0 || (size_t)length >= size)
    return mptl_fail(MPTL_EINVAL, "%s: the path does not fit into %zu bytes", dir, size);
  return MPTL_OK;
}

/* Computes the number of entries of a file from its size. */
static mptl_status count_entries(int64_t *entries, const char *path, const cifar_layout *layout) {
  struct stat st;
  if (stat(path, &st) != 0) return mptl_fail(MPTL_EIO, "%s: %s", path, strerror(errno));
  if (!S_ISREG(st.st_mode)) return mptl_fail(MPTL_EIO, "%s: not a regular file", path);
  size_t size = entry_size(layout);
  if (st.st_size % (off_t)size != 0)
    return mptl_fail(MPTL_EDATA,
                     "%s: %lld bytes, not a whole number of %s records of %zu bytes: truncated, or "
                     "another format",
                     path, (long long)st.st_size, layout->name, size);
  *entries = st.st_size / (off_t)size;
  return MPTL_OK;
}

/* Reads the next `entries` entries of a file into the data set, from index `at` on. */
static mptl_status read_entries(mptl_dataset *d, int64_t at, int64_t entries, FILE *file,
                                uint8_t *buffer, const char *path, const cifar_layout *layout) {
  size_t size = entry_size(layout);
  for (int64_t done = 0; done < entries;) {
    size_t want = entries - done < ENTRIES_A_READ ? (size_t)(entries - done) : ENTRIES_A_READ;
    if (fread(buffer, size, want, file) != want)
      return mptl_fail(MPTL_EIO, "%s: %s", path,
                       ferror(file) ? strerror(errno) : "became shorter while it was read");
    for (size_t i = 0; i < want; i++, done++) {
      const uint8_t *entry = buffer + i * size;
      int label = entry[layout->label_bytes - 1];
      if (label >= layout->classes)
        return mptl_fail(MPTL_EDATA, "%s: record %lld has label %d, accepted are 0 to %d", path,
                         (long long)done + 1, label, layout->classes - 1);
      d->labels[at + done] = label;
      memcpy(d->images + (at + done) * IMAGE_BYTES, entry + layout->label_bytes, IMAGE_BYTES);
    }
  }
  return MPTL_OK;
}

static mptl_status read_file(mptl_dataset *d, int64_t at, int64_t entries, const char *path,
                             const cifar_layout *layout) {
  uint8_t *buffer = malloc(ENTRIES_A_READ * entry_size(layout));
  if (buffer == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory to read it", path);
  int fd;
  mptl_status status = mptl_file_open(&fd, NULL, path);
  FILE *file = status == MPTL_OK ? fdopen(fd, "rb") : NULL;
  if (status != MPTL_OK)
    mptl_fail_in(status, "%s", path);
  else if (file == NULL)
    status = mptl_fail(MPTL_ENOMEM, "%s: no memory to read it", path);
  else
    status = read_entries(d, at, entries, file, buffer, path, layout);
  if (file != NULL)
    fclose(file);
  else if (fd >= 0)
    close(fd);
  free(buffer);
  return status;
}

/* ---- Whether a set is complete ---- */

/* Whether the directory has the published set: its file of class names begins like the published
 * one. */
static bool is_published(const char *dir, const cifar_layout *layout) {
  char path[FILE_PATH_MAX], line[64];
  int fd;
  snprintf(path, sizeof path, "%s/%s", dir, layout->names);
  if (mptl_file_open(&fd, NULL, path) != MPTL_OK) return false;
  ssize_t n = read(fd, line, sizeof line - 1);
  close(fd);
  line[n > 0 ? n : 0] = '\0';
  line[strcspn(line, "\r\n")] = '\0';
  return strcmp(line, layout->first_name) == 0;
}

/* NUMBER of "data_batch_NUMBER.bin"; 0 for other names. */
static int batch_number(const char *name) {
  int number = 0, length = 0;
  return sscanf(name, "data_batch_%9d.bin%n", &number, &length) == 1 && length > 0 &&
                 name[length] == '\0'
             ? number
             : 0;
}

/* The lowest number without a file, up to the highest number in the list and at least up to
 * `least`; 0 if there is none. The list is in the order of numbers. */
static int missing_batch(const file_list *list, int least) {
  int next = 1;
  for (int i = 0; i < list->count; i++) {
    int number = batch_number(list->files[i]->d_name);
    if (number == 0) return 0; /* the files do not follow the published names */
    if (number > next) return next;
    if (number == next) next++;
  }
  return next <= least ? next : 0;
}

/* MPTL_EDATA if a part of the set is missing; `there` is the number of images that exist. */
static mptl_status check_whole(const file_list *list, const cifar_layout *layout, mptl_split split,
                               int64_t there) {
  bool published = is_published(list->dir, layout);
  char what[NAME_MAX + 64] = "";
  int missing = missing_batch(list, published ? layout->published_files : 1);
  if (split == MPTL_TRAIN && missing > 0)
    snprintf(what, sizeof what, "data_batch_%d.bin is missing", missing);
  for (int i = 0; i < list->count && what[0] == '\0'; i++)
    if (file_size(list, i) == 0) snprintf(what, sizeof what, "%s is empty", list->files[i]->d_name);
  if (what[0] == '\0' && published && there != layout->published[split])
    snprintf(what, sizeof what, "%lld images of %s's %lld", (long long)there, layout->name,
             (long long)layout->published[split]);
  if (what[0] == '\0') return MPTL_OK;
  return mptl_fail(
      MPTL_EDATA,
      "%s: the %s set is not whole: %s; a limit of up to %lld images takes a part of it", list->dir,
      mptl_split_name(split), what, (long long)there);
}

/* Reads the listed files one after the other, up to the limit. All sizes are checked first, so that
 * a truncated file is an error even if the limit comes before it. */
static mptl_status read_files(mptl_dataset **dataset, const file_list *list,
                              const cifar_layout *layout, mptl_split split, int64_t limit,
                              bool incomplete) {
  char path[FILE_PATH_MAX];
  int64_t total = 0, entries = 0;
  for (int i = 0; i < list->count; i++) {
    snprintf(path, sizeof path, "%s/%s", list->dir, list->files[i]->d_name);
    MPTL_TRY(count_entries(&entries, path, layout));
    total += entries;
  }
  if (total == 0)
    return mptl_fail(MPTL_EDATA, "%s/%s: the %s set is empty, at least one record is needed",
                     list->dir, list->files[0]->d_name, mptl_split_name(split));
  if (!incomplete && limit > total) MPTL_TRY(check_whole(list, layout, split, total));
  mptl_dataset *d;
  MPTL_TRY(mptl_dataset_allocate(&d, total, layout->classes, MPTL_CIFAR_SIDE, split, limit));
  int64_t at = 0;
  mptl_status status = MPTL_OK;
  for (int i = 0; i < list->count && at < d->count && status == MPTL_OK; i++) {
    snprintf(path, sizeof path, "%s/%s", list->dir, list->files[i]->d_name);
    status = count_entries(&entries, path, layout);
    if (entries > d->count - at) entries = d->count - at;
    if (status == MPTL_OK) status = read_file(d, at, entries, path, layout);
    at += entries;
  }
  if (status == MPTL_OK && at < d->count)
    status = mptl_fail(MPTL_EIO, "%s: files became shorter while they were read", list->dir);
  if (status == MPTL_OK)
    *dataset = d;
  else
    mptl_dataset_destroy(d);
  return status;
}

mptl_status mptl_dataset_cifar(mptl_dataset **dataset, const char *dir, int classes,
                               mptl_split split, int64_t limit, bool incomplete) {
  const cifar_layout *layout;
  file_list list;
  *dataset = NULL;
  MPTL_TRY(find_layout(&layout, classes));
  MPTL_TRY(find_files(&list, dir, layout, split));
  if (list.count == 0) {
    const char *const *patterns = layout->patterns[split];
    return mptl_fail(
        MPTL_EIO,
        "%s: no %s %s set: looked for %s and %s in %s and %s (the binary version of %s is at %s)",
        dir, layout->name, mptl_split_name(split), patterns[0], patterns[1], dir, list.dir,
        layout->name, "https://www.cs.toronto.edu/~kriz/cifar.html");
  }
  mptl_status status = read_files(dataset, &list, layout, split, limit, incomplete);
  free_list(&list);
  return status;
}

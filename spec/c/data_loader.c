/* The loader, in cases that Lua cannot test: many threads, abandoned epochs, destruction during an
 * epoch. Also for the thread and address sanitizers. Exits 0, or 1 after one line that says what
 * failed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "mptl/data.h"
#include "mptl/jpeg.h"

static mptl_loader_options options(int batch_size, int threads, int slots) {
  return (mptl_loader_options){.batch_size = batch_size,
                               .threads = threads,
                               .slots = slots,
                               .shuffle = 1,
                               .augment = 1,
                               .seed = 7,
                               .mean = {0.5f, 0.5f, 0.5f},
                               .std = {0.25f, 0.25f, 0.25f}};
}

static uint64_t hash(uint64_t h, const void *data, size_t bytes) {
  const unsigned char *p = data;
  for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u;
  return h;
}

/* A hash of everything that a loader returns in an epoch from first_batch on; 0 after a failure. */
static uint64_t hash_epoch(mptl_loader *loader, int64_t epoch, int64_t first_batch) {
  uint64_t h = 0xcbf29ce484222325u;
  mptl_batch batch;
  if (mptl_loader_start(loader, epoch, first_batch) != MPTL_OK) return 0;
  for (;;) {
    if (mptl_loader_next(loader, &batch) != MPTL_OK) return 0;
    if (batch.n == 0) return h;
    h = hash(h, batch.images, (size_t)batch.n * batch.image_size * sizeof *batch.images);
    h = hash(h, batch.labels, (size_t)batch.n * sizeof *batch.labels);
    h = hash(h, batch.indices, (size_t)batch.n * sizeof *batch.indices);
  }
}

static int same_with_any_threads(const mptl_dataset *dataset) {
  static const int shapes[][2] = {{1, 1}, {2, 2}, {3, 8}, {8, 4}};
  uint64_t want[2] = {0, 0};
  for (int i = 0; i < 4; i++) {
    mptl_loader_options o = options(32, shapes[i][0], shapes[i][1]);
    mptl_loader *loader;
    CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
    CHECK(mptl_loader_batches(loader) == 10);
    for (int epoch = 0; epoch < 2; epoch++) {
      uint64_t whole = hash_epoch(loader, epoch, 0);
      CHECK(whole != 0);
      if (i == 0) want[epoch] = whole;
      CHECK(whole == want[epoch]);
    }
    mptl_loader_destroy(loader);
  }
  CHECK(want[0] != want[1]);
  return 0;
}

/* Abandons epochs after any number of batches: a later epoch must not be affected. */
static int abandoned_epochs(const mptl_dataset *dataset) {
  mptl_loader_options o = options(16, 4, 3);
  mptl_loader *loader;
  mptl_batch batch;
  CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
  uint64_t want = hash_epoch(loader, 5, 3);
  for (int taken = 0; taken < 8; taken++) {
    CHECK(mptl_loader_start(loader, 100 + taken, 0) == MPTL_OK);
    for (int i = 0; i < taken; i++) {
      CHECK(mptl_loader_next(loader, &batch) == MPTL_OK);
      CHECK(batch.n == 16);
    }
    CHECK(hash_epoch(loader, 5, 3) == want);
  }
  mptl_loader_destroy(loader);
  return 0;
}

/* Workers do not change a batch before the next one is asked for. */
static int batch_is_stable(const mptl_dataset *dataset) {
  mptl_loader_options o = options(16, 4, 2);
  mptl_loader *loader;
  mptl_batch batch;
  CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
  CHECK(mptl_loader_start(loader, 0, 0) == MPTL_OK);
  for (int i = 0; i < 19; i++) {
    CHECK(mptl_loader_next(loader, &batch) == MPTL_OK);
    size_t bytes = (size_t)batch.n * batch.image_size * sizeof *batch.images;
    uint64_t before = hash(1, batch.images, bytes);
    for (int again = 0; again < 3; again++) CHECK(hash(1, batch.images, bytes) == before);
  }
  mptl_loader_destroy(loader);
  return 0;
}

/* A loader may be destroyed at any time. */
static int destroyed_early(const mptl_dataset *dataset) {
  for (int taken = -1; taken < 12; taken++) {
    mptl_loader_options o = options(8, 1 + (taken + 1) % 5, 4);
    mptl_loader *loader;
    mptl_batch batch;
    CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
    if (taken >= 0) CHECK(mptl_loader_start(loader, taken, 0) == MPTL_OK);
    for (int i = 0; i < taken; i++) CHECK(mptl_loader_next(loader, &batch) == MPTL_OK);
    mptl_loader_destroy(loader);
  }
  mptl_loader_destroy(NULL);
  return 0;
}

static int misuse(const mptl_dataset *dataset) {
  mptl_loader_options o = options(301, 1, 0);
  mptl_loader *loader;
  mptl_batch batch;
  CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_EINVAL);
  CHECK(loader == NULL);
  CHECK(strcmp(mptl_error(), "batch 301 is larger than the training set (300 images)") == 0);
  o = options(300, 1, 0);
  CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
  CHECK(mptl_loader_next(loader, &batch) == MPTL_EINVAL);
  CHECK(mptl_loader_start(loader, -1, 0) == MPTL_EINVAL);
  CHECK(mptl_loader_start(loader, 0, 2) == MPTL_EINVAL);
  CHECK(mptl_loader_start(loader, 0, 1) == MPTL_OK);
  CHECK(mptl_loader_next(loader, &batch) == MPTL_OK);
  CHECK(batch.n == 0);
  mptl_loader_destroy(loader);
  return 0;
}

enum { CLASSES = 4, FILES = 11 };

/* Writes DIR/train/CLASS/FILE, or removes these files: CLASSES * FILES images of many sizes, of
 * which every bad_every-th is truncated. */
static int make_folder(const char *dir, int bad_every, int removing) {
  static uint8_t pixels[90 * 70 * 3];
  char path[256];
  snprintf(path, sizeof path, "%s/train", dir);
  if (!removing) mkdir(path, 0777);
  for (int c = 0; c < CLASSES; c++) {
    snprintf(path, sizeof path, "%s/train/%c", dir, 'a' + c);
    if (!removing) mkdir(path, 0777);
    for (int i = 0; i < FILES; i++) {
      snprintf(path, sizeof path, "%s/train/%c/%02d.jpg", dir, 'a' + c, i);
      if (removing) {
        unlink(path);
        continue;
      }
      uint8_t *jpeg;
      size_t size;
      for (size_t p = 0; p < sizeof pixels; p++)
        pixels[p] = (uint8_t)(p * (size_t)(i + 1) / 50 + (size_t)c * 60);
      FILE *file = fopen(path, "wb");
      CHECK(file != NULL);
      CHECK(mptl_encode(&jpeg, &size, pixels, 20 + 7 * i, 70 - 5 * i, 90) == MPTL_OK);
      fwrite(jpeg, 1, bad_every > 0 && (c * FILES + i) % bad_every == 0 ? size / 2 : size, file);
      fclose(file);
      free(jpeg);
    }
    snprintf(path, sizeof path, "%s/train/%c", dir, 'a' + c);
    if (removing) rmdir(path);
  }
  snprintf(path, sizeof path, "%s/train", dir);
  if (removing) rmdir(path);
  return 0;
}

/* Encoded images, every fifth of them bad: 9 of 44. */
static int encoded(const char *dir) {
  mptl_images *images;
  mptl_dataset *dataset;
  mptl_loader *loader;
  mptl_batch batch;
  CHECK(mptl_images_open_folder(&images, dir, MPTL_TRAIN) == MPTL_OK);
  CHECK(mptl_dataset_encoded(&dataset, images, MPTL_TRAIN, 48, 55, 1, MPTL_NO_LIMIT) == MPTL_OK);
  CHECK(dataset->count == CLASSES * FILES);
  uint64_t want[2] = {0, 0};
  for (int threads = 1; threads <= 5; threads += 2) {
    mptl_loader_options o = options(10, threads, threads == 3 ? 1 : 0);
    CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
    for (int epoch = 0; epoch < 2; epoch++) {
      uint64_t got = hash_epoch(loader, epoch, 0);
      CHECK(got != 0);
      if (threads == 1) want[epoch] = got;
      CHECK(got == want[epoch]);
    }
    int n = 0, skipped = 0;
    CHECK(mptl_loader_start(loader, 3, 1) == MPTL_OK);
    do {
      CHECK(mptl_loader_next(loader, &batch) == MPTL_OK);
      for (int i = 0; i < batch.n; i++)
        CHECK(batch.indices[i] % 5 != 0 && batch.labels[i] == batch.indices[i] / FILES);
      n += batch.n;
      skipped += batch.skipped;
    } while (batch.n > 0);
    CHECK(n + skipped == 34);
    CHECK(skipped == 0 || strstr(mptl_loader_skipped(loader), "truncated") != NULL);
    mptl_loader_destroy(loader);
  }
  mptl_dataset_destroy(dataset);

  CHECK(mptl_dataset_encoded(&dataset, images, MPTL_TRAIN, 48, 55, 0, MPTL_NO_LIMIT) == MPTL_OK);
  mptl_loader_options o = options(10, 3, 0);
  o.shuffle = 0;
  CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
  CHECK(mptl_loader_start(loader, 0, 1) == MPTL_OK);
  for (int again = 0; again < 2; again++) {
    CHECK(mptl_loader_next(loader, &batch) == MPTL_EDATA);
    CHECK(strstr(mptl_error(), "/train/a/10.jpg: a truncated JPEG image") !=
          NULL); /* the batch's first bad one */
    CHECK(mptl_loader_position(loader) == 1);
  }
  mptl_loader_destroy(loader);
  mptl_dataset_destroy(dataset);
  mptl_images_destroy(images);
  return 0;
}

/* Batches of bad images only are skipped, and their images counted. */
static int all_bad(const char *dir) {
  mptl_images *images;
  mptl_dataset *dataset;
  mptl_loader *loader;
  mptl_batch batch;
  CHECK(mptl_images_open_folder(&images, dir, MPTL_TRAIN) == MPTL_OK);
  CHECK(mptl_dataset_encoded(&dataset, images, MPTL_TRAIN, 8, 8, 1, MPTL_NO_LIMIT) == MPTL_OK);
  mptl_loader_options o = options(6, 2, 0);
  CHECK(mptl_loader_create(&loader, dataset, &o) == MPTL_OK);
  CHECK(mptl_loader_start(loader, 0, 0) == MPTL_OK);
  CHECK(mptl_loader_next(loader, &batch) == MPTL_OK);
  CHECK(batch.n == 0 && batch.skipped == CLASSES * FILES);
  CHECK(mptl_loader_position(loader) == mptl_loader_batches(loader));
  mptl_loader_destroy(loader);
  mptl_dataset_destroy(dataset);
  mptl_images_destroy(images);
  return 0;
}

static int with_folder(int (*test)(const char *dir), int bad_every) {
  char dir[] = "/tmp/mptl-loader-XXXXXX";
  CHECK(mkdtemp(dir) != NULL);
  int failed = make_folder(dir, bad_every, 0) || test(dir);
  make_folder(dir, bad_every, 1);
  rmdir(dir);
  return failed;
}

int main(void) {
  mptl_dataset *dataset;
  CHECK(mptl_dataset_synthetic(&dataset, 300, 10, 32, 1, MPTL_TRAIN, MPTL_NO_LIMIT) == MPTL_OK);
  int failed = same_with_any_threads(dataset) || abandoned_epochs(dataset) ||
               batch_is_stable(dataset) || destroyed_early(dataset) || misuse(dataset) ||
               with_folder(encoded, 5) || with_folder(all_bad, 1);
  mptl_dataset_destroy(dataset);
  return failed;
}

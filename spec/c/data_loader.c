/* The loader from C, for what Lua does not reach: many threads, abandoned epochs, destruction under way; run it under the
 * thread and address sanitizers. Exits 0, or 1 after one line that says what failed. */
#include <stdio.h>
#include <string.h>

#include "mptl/data.h"

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, #condition, mptl_error()); \
      return 1;                                                                                    \
    }                                                                                              \
  } while (0)

static mptl_loader_options options(int batch, int threads, int slots) {
  return (mptl_loader_options){.batch = batch,
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

/* One number for all that a loader gives in an epoch from first_batch on; 0 on failure. */
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

/* Epochs left at every place, begun again and gone through: what was abandoned must not show. */
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

/* A batch stays as it is while the workers go on, until the next one is asked for. */
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

static int destroyed_under_way(const mptl_dataset *dataset) {
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

int main(void) {
  mptl_dataset *dataset;
  CHECK(mptl_dataset_synthetic(&dataset, 300, 10, 32, 1, MPTL_TRAIN, MPTL_NO_LIMIT) == MPTL_OK);
  int failed = same_with_any_threads(dataset) || abandoned_epochs(dataset) || batch_is_stable(dataset) ||
               destroyed_under_way(dataset) || misuse(dataset);
  mptl_dataset_destroy(dataset);
  return failed;
}

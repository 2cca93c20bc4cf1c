/* Data sets of 32x32 colour images in memory, and a loader that makes augmented, normalised batches ahead of time.
 *
 * A data set is read once and never changes, so any number of loaders may share one. A loader's batches are a pure function of
 * (data set, options, epoch, batch number): they do not depend on the number of threads, and an epoch can begin in the middle.
 */
#ifndef MPTL_DATA_H
#define MPTL_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/images.h"
#include "mptl/status.h"

#define MPTL_IMAGE_CHANNELS 3
#define MPTL_IMAGE_SIDE 32
#define MPTL_IMAGE_SIZE (MPTL_IMAGE_CHANNELS * MPTL_IMAGE_SIDE * MPTL_IMAGE_SIDE) /* values of an image */

typedef struct mptl_dataset {
  int64_t count; /* images, at least 1 */
  int classes;
  mptl_split split;
  uint8_t *images; /* [count][3][32][32], planes red, green, blue */
  int32_t *labels; /* [count], each in 0 .. classes-1 */
} mptl_dataset;

#define MPTL_NO_LIMIT INT64_MAX

/* Reads CIFAR-10 or CIFAR-100 in the binary layout of https://www.cs.toronto.edu/~kriz/cifar.html: records of one label byte
 * (classes 10) or a coarse and a fine one, of which the fine counts (classes 100), then 3x32x32 bytes. The files are looked for
 * in dir itself, then in dir/cifar-10-batches-bin or dir/cifar-100-binary; data_batch_*.bin or train.bin hold the training set,
 * test_batch.bin or test.bin the test set, any whole number of records each. Keeps the first limit images.
 * Errors: MPTL_EINVAL classes, limit; MPTL_EIO not there or not readable; MPTL_EDATA truncated, empty, label out of range. */
MPTL_API mptl_status mptl_dataset_cifar(mptl_dataset **dataset, const char *dir, int classes, mptl_split split, int64_t limit);

/* Writes to found (of size bytes) the directory that mptl_dataset_cifar would read from, "" when there is none. */
MPTL_API mptl_status mptl_dataset_find_cifar(char *found, size_t size, const char *dir, int classes, mptl_split split);

/* Makes count images of 2 to 100 classes, a pure function of (seed, split, index), the same bits on every machine: coloured
 * gratings whose orientation and pitch tell the class, under random phase, contrast, envelope and noise. Left-right flips
 * keep the class. Keeps the first limit images. */
MPTL_API mptl_status mptl_dataset_synthetic(mptl_dataset **dataset, int64_t count, int classes, uint64_t seed, mptl_split split,
                                            int64_t limit);

MPTL_API void mptl_dataset_destroy(mptl_dataset *dataset); /* NULL is allowed */

typedef struct mptl_loader_options {
  int batch;     /* images a batch, 1 to the data set's count */
  int threads;   /* workers, 1 to 64; 0 means 1 */
  int slots;     /* batches made ahead or in use, 1 to 256; 0 means 4, or threads + 1 if that is more */
  int shuffle;   /* a fresh permutation each epoch (Fisher-Yates), else the data set's order */
  int augment;   /* random crop 32 of the image padded by 4 zeros, then a left-right flip with probability 1/2 */
  int drop_last; /* leave out the smaller batch at the end */
  uint64_t seed;
  float mean[MPTL_IMAGE_CHANNELS], std[MPTL_IMAGE_CHANNELS]; /* a byte p of channel c becomes (p/255 - mean[c]) / std[c] */
} mptl_loader_options;

/* Valid until the next call of mptl_loader_next, _start or _destroy on the loader. */
typedef struct mptl_batch {
  const float *images;    /* [n][32][32][3], 64-byte aligned */
  const int32_t *labels;  /* [n] */
  const int32_t *indices; /* [n], the images' places in the data set */
  int n;                  /* 0 at the end of the epoch */
} mptl_batch;

typedef struct mptl_loader mptl_loader; /* used by one thread at a time */

/* Starts the workers; dataset must outlive the loader. MPTL_EINVAL for an option out of range, a batch larger than the set among
 * them. */
MPTL_API mptl_status mptl_loader_create(mptl_loader **loader, const mptl_dataset *dataset, const mptl_loader_options *options);
MPTL_API void mptl_loader_destroy(mptl_loader *loader); /* stops the workers; NULL is allowed */

/* Batches an epoch. */
MPTL_API int64_t mptl_loader_batches(const mptl_loader *loader);

/* Begins epoch (0 to 2^32-1) at batch first_batch (0 to mptl_loader_batches), and abandons one that is under way. */
MPTL_API mptl_status mptl_loader_start(mptl_loader *loader, int64_t epoch, int64_t first_batch);

/* The next batch, in order, waiting for it if need be; batch->n is 0 at the end. MPTL_EINVAL before the first start. */
MPTL_API mptl_status mptl_loader_next(mptl_loader *loader, mptl_batch *batch);

#endif

/* Data sets of square colour images, in memory or encoded, and a loader that makes augmented, normalised batches ahead of time.
 *
 * A data set is opened once and never changes, so any number of loaders may share one. A loader's batches are a pure function of
 * (data set, options, epoch, batch number): they do not depend on the number of threads, and an epoch can begin in the middle.
 */
#ifndef MPTL_DATA_H
#define MPTL_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/device.h"
#include "mptl/images.h"
#include "mptl/status.h"

#define MPTL_IMAGE_CHANNELS 3
#define MPTL_CIFAR_SIDE 32
#define MPTL_IMAGE_SIDE_MAX 1024

typedef struct mptl_dataset {
  int64_t count; /* images, at least 1 */
  int classes;
  mptl_split split;
  int side;        /* the images of batches are side x side pixels */
  int32_t *labels; /* [count], each in 0 .. classes-1 */
  uint8_t *images; /* [count][3][side][side], planes red, green, blue; NULL when they are encoded */

  const mptl_images *encoded; /* decoded whenever they are needed; NULL when images has them */
  int resize;                 /* the shorter side that an encoded image is scaled to when it is not augmented, at least side */
  int skip_bad;               /* leave out encoded images that cannot be decoded, else they are errors */
} mptl_dataset;

/* Values of an image in a batch. */
static inline size_t mptl_image_size(const mptl_dataset *d) { return MPTL_IMAGE_CHANNELS * (size_t)d->side * (size_t)d->side; }

#define MPTL_NO_LIMIT INT64_MAX

/* Reads CIFAR-10 or CIFAR-100 in the binary layout of https://www.cs.toronto.edu/~kriz/cifar.html: records of one label byte
 * (classes 10) or a coarse and a fine one, of which the fine counts (classes 100), then 3x32x32 bytes. The files are looked for
 * in dir itself, then in dir/cifar-10-batches-bin or dir/cifar-100-binary; data_batch_*.bin or train.bin hold the training set,
 * test_batch.bin or test.bin the test set, any whole number of records each. Keeps the first limit images.
 * A set that is not whole is an error, unless part is true or limit is no larger than what is there: one of the numbered files is
 * missing or empty, or, where the file of the classes' names is that of the published set, there are not as many images.
 * Errors: MPTL_EINVAL classes, limit; MPTL_EIO not there or not readable; MPTL_EDATA truncated, empty, label out of range, not whole. */
MPTL_API mptl_status mptl_dataset_cifar(mptl_dataset **dataset, const char *dir, int classes, mptl_split split, int64_t limit,
                                        bool incomplete);

/* Writes to found (of size bytes) the directory that mptl_dataset_cifar would read from, "" when there is none. */
MPTL_API mptl_status mptl_dataset_find_cifar(char *found, size_t size, const char *dir, int classes, mptl_split split);

/* Makes count images of 2 to 100 classes, a pure function of (seed, split, index, side), the same bits on every machine: coloured
 * gratings whose orientation and pitch tell the class, under random phase, contrast, envelope and noise. Left-right flips
 * keep the class. Keeps the first limit images. */
MPTL_API mptl_status mptl_dataset_synthetic(mptl_dataset **dataset, int64_t count, int classes, int side, uint64_t seed,
                                            mptl_split split, int64_t limit);

/* The image of such a set that has this index, of the class index % classes, to planes [3][side][side]. MPTL_EINVAL: an argument. */
MPTL_API mptl_status mptl_synthetic_image(uint8_t *planes, int64_t index, int classes, int side, uint64_t seed, mptl_split split);

/* A data set of encoded images, which must outlive it. With a limit below their number, limit of them spread evenly over the whole
 * (image i is number i * count / limit of the collection), so that sorted classes are all there. MPTL_EINVAL: side, resize, limit. */
MPTL_API mptl_status mptl_dataset_encoded(mptl_dataset **dataset, const mptl_images *images, mptl_split split, int side,
                                          int resize, int skip_bad, int64_t limit);

/* Copies image i to bytes, [3][side][side]; an encoded one is decoded and scaled as it is without augmentation. MPTL_EIO, MPTL_EDATA,
 * MPTL_ENOMEM: for an encoded one only. */
MPTL_API mptl_status mptl_dataset_image(const mptl_dataset *dataset, int32_t i, uint8_t *bytes);

MPTL_API void mptl_dataset_destroy(mptl_dataset *dataset); /* NULL is allowed */

/* What becomes of an image of a data set:
 *   in memory, augmented: random crop of the image padded by 4 zeros on each side, then a left-right flip with probability 1/2;
 *   in memory, not augmented: as it is;
 *   encoded, augmented: a random part of 8 to 100 % of the area and of 3:4 to 4:3 (the largest part in the middle of those shapes when
 *     10 tries gave none that fits), scaled to side x side, then the flip: torchvision's RandomResizedCrop;
 *   encoded, not augmented: scaled so that the shorter side is resize, then side x side in the middle: Resize and CenterCrop.
 * Images are scaled as mptl/resample.h says, and then normalised. What is drawn is a function of (seed, epoch, the image's place in the
 * data set). */
typedef struct mptl_loader_options {
  int batch_size; /* images in a batch, 1 to the data set's count */
  int threads;    /* workers, 1 to 64; 0 means 1 */
  int slots;      /* batches made ahead or in use, 1 to 256; 0: 4, or 2 when a batch takes more than 128 MiB */
  int shuffle;    /* a new permutation each epoch (Fisher-Yates), else the data set's order */
  int augment;
  int drop_last; /* leave out the smaller batch at the end */
  uint64_t seed;
  mptl_device *device;                                       /* that the batches are for; NULL: the CPU */
  float mean[MPTL_IMAGE_CHANNELS], std[MPTL_IMAGE_CHANNELS]; /* a byte p of channel c becomes (p/255 - mean[c]) / std[c] */
} mptl_loader_options;

/* Valid until the next call of mptl_loader_next, _start or _destroy on the loader. */
typedef struct mptl_batch {
  const float *images;    /* [n][side][side][3], 64-byte aligned */
  const int32_t *labels;  /* [n] */
  const int32_t *indices; /* [n], the images' places in the data set */
  int n;                  /* 0 at the end of the epoch */
  size_t image_size;      /* values of an image */
  int skipped;            /* bad images that were left out, of this batch and of whole batches before it: n is so much smaller */
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

/* The next batch, in order, waiting for it if need be; batch->n is 0 at the end. A batch all of whose images were skipped is passed
 * over. MPTL_EINVAL before the first start; MPTL_EIO, MPTL_EDATA, MPTL_ENOMEM: an image of the batch could not be read, the message
 * names it; so does every further call until the next start. */
MPTL_API mptl_status mptl_loader_next(mptl_loader *loader, mptl_batch *batch);

/* The number of the batch that mptl_loader_next looks for next: where to go on with mptl_loader_start. */
MPTL_API int64_t mptl_loader_position(const mptl_loader *loader);

/* Which image was skipped last among those that batch->skipped has counted, and why; "" if none since the start. Valid until the next
 * call of mptl_loader_next. */
MPTL_API const char *mptl_loader_skipped(const mptl_loader *loader);

#endif

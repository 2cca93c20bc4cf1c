/* Data sets of square colour images, in memory or encoded, and a loader that prepares augmented,
 * normalised batches ahead of training (method.md 5.5).
 *
 * A data set does not change after it is opened, so several loaders may share it. The batches of a
 * loader are a pure function of (data set, options, epoch, batch number): they do not depend on the
 * number of threads, and an epoch can begin in the middle.
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
  int64_t count; /* number of images, at least 1 */
  int classes;
  mptl_split split;
  int side;        /* the images of batches are side x side pixels */
  int32_t *labels; /* [count], each in 0 .. classes-1 */
  uint8_t *images; /* [count][3][side][side], planes red, green, blue; NULL: they are encoded */

  const mptl_images *encoded; /* encoded images, decoded at each use; NULL: they are in memory */
  int resize;   /* the shorter side after scaling without augmentation, at least `side` */
  int skip_bad; /* skip encoded images that cannot be decoded; else they are errors */
} mptl_dataset;

/* Number of values of an image in a batch. */
static inline size_t mptl_image_size(const mptl_dataset *d) {
  return MPTL_IMAGE_CHANNELS * (size_t)d->side * (size_t)d->side;
}

#define MPTL_NO_LIMIT INT64_MAX

/* Reads CIFAR-10 or CIFAR-100 in the binary layout of https://www.cs.toronto.edu/~kriz/cifar.html:
 * entries of one label byte (10 classes), or of a coarse and a fine label byte, of which the fine
 * one is used (100 classes), and 3x32x32 bytes. The files are looked for in dir itself, then in
 * dir/cifar-10-batches-bin or dir/cifar-100-binary. data_batch_*.bin or train.bin hold the training
 * set, test_batch.bin or test.bin the test set; each has a whole number of entries. The first
 * `limit` images are kept.
 *
 * An incomplete set is an error unless `incomplete` is true or `limit` images exist. A set is
 * incomplete if one of the numbered files is missing or empty or, if the file of class names is the
 * published one, if the number of images is not the published one.
 *
 * The caller owns *dataset. MPTL_EINVAL: classes, limit; MPTL_EIO: a file does not exist or is not
 * readable; MPTL_EDATA: truncated, empty, incomplete, or a label that is not a class;
 * MPTL_ENOMEM. */
MPTL_API mptl_status mptl_dataset_cifar(mptl_dataset **dataset, const char *dir, int classes,
                                        mptl_split split, int64_t limit, bool incomplete);

/* Writes to found (`size` bytes) the directory that mptl_dataset_cifar would read; "" if there is
 * none. MPTL_EINVAL: classes, or the path is too long; MPTL_EIO. */
MPTL_API mptl_status mptl_dataset_find_cifar(char *found, size_t size, const char *dir, int classes,
                                             mptl_split split);

/* Makes count images of 2 to 100 classes: coloured gratings whose orientation and pitch show the
 * class, with random phase, contrast, window and noise. Images are a pure function of (seed, split,
 * index, side) and the same bits on every machine. Left-right flips keep the class. The first
 * `limit` images are kept. MPTL_EINVAL; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_dataset_synthetic(mptl_dataset **dataset, int64_t count, int classes,
                                            int side, uint64_t seed, mptl_split split,
                                            int64_t limit);

/* Writes image number `index` of such a set, whose class is index % classes, to planes
 * [3][side][side]. MPTL_EINVAL for a wrong argument. */
MPTL_API mptl_status mptl_synthetic_image(uint8_t *planes, int64_t index, int classes, int side,
                                          uint64_t seed, mptl_split split);

/* Makes a data set of encoded images, which must outlive it. If limit is less than their number,
 * its images are spread evenly over the collection (image i is number i * count / limit), so that
 * it has all classes although the collection is sorted by class. MPTL_EINVAL: side, resize, limit;
 * MPTL_ENOMEM. */
MPTL_API mptl_status mptl_dataset_encoded(mptl_dataset **dataset, const mptl_images *images,
                                          mptl_split split, int side, int resize, int skip_bad,
                                          int64_t limit);

/* Copies image i to bytes, [3][side][side]; an encoded image is decoded, and scaled as without
 * augmentation. MPTL_EIO, MPTL_EDATA and MPTL_ENOMEM for encoded images only. */
MPTL_API mptl_status mptl_dataset_image(const mptl_dataset *dataset, int32_t i, uint8_t *bytes);

MPTL_API void mptl_dataset_destroy(mptl_dataset *dataset); /* NULL is allowed */

/* How the loader prepares an image:
 *   in memory, augmented: a random crop of the image, padded by 4 zeros on each side, then a
 *     left-right flip with probability 1/2;
 *   in memory, not augmented: unchanged;
 *   encoded, augmented: a random crop of 8 to 100 % of the area, with sides of 3:4 to 4:3 (if 10
 *     tries do not fit into the image, the largest crop of such a shape in the middle), scaled to
 *     side x side, then the flip: torchvision's RandomResizedCrop;
 *   encoded, not augmented: scaled so that the shorter side is resize, then side x side pixels in
 *     the middle: torchvision's Resize and CenterCrop.
 * Images are scaled as in mptl/resample.h, and then normalised. Random numbers are a function of
 * (seed, epoch, index of the image in the data set). */
typedef struct mptl_loader_options {
  int batch_size; /* images in a batch, 1 to the data set's count */
  int threads;    /* workers, 1 to 64; 0: 1 */
  /* batches made ahead or in use, 1 to 256; 0: 4, or 2 if a batch has more than 128 MiB */
  int slots;
  int shuffle; /* a new permutation each epoch (Fisher-Yates), else the data set's order */
  int augment;
  int drop_last; /* leave out the last batch if it is smaller */
  uint64_t seed;
  mptl_device *device; /* that reads the batches; NULL: the CPU */
  float mean[MPTL_IMAGE_CHANNELS],
      std[MPTL_IMAGE_CHANNELS]; /* a byte p of channel c becomes (p/255 - mean[c]) / std[c] */
} mptl_loader_options;

/* A batch. Its arrays are valid until the next mptl_loader_next, _start or _destroy of the
 * loader. */
typedef struct mptl_batch {
  const float *images;    /* [n][side][side][3], 64-byte aligned */
  const int32_t *labels;  /* [n] */
  const int32_t *indices; /* [n], the images' indices in the data set */
  int n;                  /* 0 at the end of the epoch */
  size_t image_size;      /* values of an image */
  int skipped;            /* bad images left out of this batch, and of skipped batches before it */
} mptl_batch;

typedef struct mptl_loader mptl_loader; /* used by one thread at a time */

/* Creates a loader and starts its workers. dataset must outlive the loader. MPTL_EINVAL for an
 * option that is not accepted, such as a batch larger than the set; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_loader_create(mptl_loader **loader, const mptl_dataset *dataset,
                                        const mptl_loader_options *options);
MPTL_API void mptl_loader_destroy(mptl_loader *loader); /* stops the workers; NULL is allowed */

/* The number of batches in an epoch. */
MPTL_API int64_t mptl_loader_batches(const mptl_loader *loader);

/* Ends the current epoch, if there is one, and begins an epoch (0 to 2^32-1) at batch first_batch
 * (0 to mptl_loader_batches). MPTL_EINVAL for other numbers. */
MPTL_API mptl_status mptl_loader_start(mptl_loader *loader, int64_t epoch, int64_t first_batch);

/* Returns the next batch, in order, and waits for it if necessary; batch->n is 0 at the end of the
 * epoch. A batch without good images is skipped. MPTL_EINVAL before the first start; MPTL_EIO,
 * MPTL_EDATA, MPTL_ENOMEM: an image of the batch could not be read, and the message names it; all
 * further calls fail in the same way until the next start. */
MPTL_API mptl_status mptl_loader_next(mptl_loader *loader, mptl_batch *batch);

/* The number of the batch that mptl_loader_next returns next: mptl_loader_start can continue
 * there. */
MPTL_API int64_t mptl_loader_position(const mptl_loader *loader);

/* The name of the image that was skipped last, and the reason; "" if none was skipped since the
 * start. Valid until the next mptl_loader_next. */
MPTL_API const char *mptl_loader_skipped(const mptl_loader *loader);

#endif

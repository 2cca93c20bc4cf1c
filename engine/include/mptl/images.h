/* Collections of encoded images (usually JPEG files) with labels, for data sets like ImageNet.
 *
 * A collection does not change after it is opened, and any number of threads may read from it at
 * the same time. Images are numbered from 0, in the same order whenever and wherever the collection
 * is opened.
 */
#ifndef MPTL_IMAGES_H
#define MPTL_IMAGES_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef enum mptl_split { MPTL_TRAIN = 0, MPTL_TEST = 1 } mptl_split;

typedef struct mptl_images mptl_images;

/* Opens a folder: DIR/train/CLASS/FILE, or DIR/val/CLASS/FILE for MPTL_TEST, with names that end in
 * .jpeg or .jpg in upper or lower case. Other files, and names that begin with a dot, are ignored.
 * Both splits have the classes of train, sorted by name (as bytes); the label of an image is the
 * index of its class in that list. Images are sorted by class, then by file name. Links are
 * followed. The caller owns *images. MPTL_EIO: a directory is missing or not readable; MPTL_EDATA:
 * no classes, no images, a class of train without images, a class of val that train does not have;
 * MPTL_ENOMEM. */
MPTL_API mptl_status mptl_images_open_folder(mptl_images **images, const char *dir,
                                             mptl_split split);

/* The number of classes of the folder, without listing its images; 0 if DIR/train or DIR/val does
 * not exist or has no directories. */
MPTL_API int mptl_images_folder_classes(const char *dir);

MPTL_API void mptl_images_destroy(mptl_images *images); /* NULL is allowed */

MPTL_API int64_t mptl_images_count(const mptl_images *images); /* 1 to 2^31-1 */
MPTL_API int mptl_images_classes(const mptl_images *images);
MPTL_API const char *mptl_images_class_name(
    const mptl_images *images, int label); /* 0 <= label < classes; owned by the collection */
MPTL_API int32_t mptl_images_label(const mptl_images *images,
                                   int64_t i); /* 0 <= i < count; 0 to classes - 1 */
MPTL_API const char *mptl_images_name(const mptl_images *images,
                                      int64_t i); /* "CLASS/FILE"; owned by the collection */
MPTL_API const char *mptl_images_where(
    const mptl_images *images); /* the directory or file, for messages */

/* An encoded image, and a buffer that reads reuse. Zero it before the first read. */
typedef struct mptl_encoded {
  const uint8_t *data; /* the image, in buffer; valid until the next read into this struct */
  size_t size;         /* bytes, at most MPTL_ENCODED_MAX */
  uint8_t *buffer;     /* owned by the struct; NULL until a read needs it */
  size_t capacity;
} mptl_encoded;

#define MPTL_ENCODED_MAX ((size_t)256 << 20) /* larger files are refused */

/* Reads image i. MPTL_EIO, MPTL_EDATA or MPTL_ENOMEM: the message names the collection, the image
 * and the reason. */
MPTL_API mptl_status mptl_images_read(const mptl_images *images, int64_t i, mptl_encoded *encoded);

MPTL_API void mptl_encoded_free(mptl_encoded *encoded); /* frees the buffer and zeroes the struct */

#endif

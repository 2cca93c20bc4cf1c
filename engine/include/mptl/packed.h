/* Packed data sets: one file with the encoded images of a training and a test set, their names and
 * their classes, and a directory with the place of each image. Opening a file reads the directory
 * only, so large images do not slow it down; and a shared file system has one file instead of a
 * million.
 *
 * The file, all numbers little-endian and unsigned:
 *
 *   header, 64 bytes
 *      0  8 bytes  "MPTLPACK"
 *      8  u32      version, 1
 *     12  u32      number of classes
 *     16  u64      training images
 *     24  u64      test images
 *     32  u64      where the directory begins
 *     40  u64      its size; the file ends with it
 *     48  u32      CRC-32C of the directory
 *     52  u32 x 2  zero
 *     60  u32      CRC-32C of the bytes 0 to 59
 *   the images, one after the other, each as it was in its file
 *   directory
 *      24 bytes an image, training images first, each set sorted by class, then by name (as bytes):
 *      0  u64      where the image begins
 *      8  u32      its size
 *     12  u32      its CRC-32C
 *     16  u32      its class, an index into the list of classes
 *     20  u32      where its name begins in the texts: "CLASS/FILE"
 *      4 bytes a class, sorted by name: where the name begins in the texts
 *      the texts, each ending in a zero byte
 */
#ifndef MPTL_PACKED_H
#define MPTL_PACKED_H

#include "mptl/images.h"

/* Opens one split of a packed file. The whole directory is checked, so that no file can make later
 * calls read outside it; the checksum of an image is checked when the image is read. Reading from a
 * file that was cut off after it was opened is MPTL_EIO. The caller owns *images. MPTL_EIO: the
 * file does not exist or is not readable; MPTL_EDATA: it is another kind of file, truncated,
 * damaged, or has no images in the split; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_images_open_packed(mptl_images **images, const char *path,
                                             mptl_split split);

/* The number of classes of a packed file; 0 if path does not exist or does not begin like a packed
 * file. */
MPTL_API int mptl_images_packed_classes(const char *path);

typedef struct mptl_packer mptl_packer; /* writes a packed file */

/* Begins a file. It is written to PATH.tmp; a file of that name, from an interrupted attempt, is
 * overwritten. path itself does not change before mptl_packer_finish. MPTL_EIO if the file cannot
 * be written, or another packer is writing it; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_packer_create(mptl_packer **packer, const char *path);

/* Adds an image, in any order. class_name must not contain "/", file must not have an empty part,
 * and neither may contain control characters. MPTL_EINVAL for another name, and for an image of 0
 * bytes or of more than MPTL_ENCODED_MAX: then nothing changes. MPTL_EIO, MPTL_ENOMEM. */
MPTL_API mptl_status mptl_packer_add(mptl_packer *packer, mptl_split split, const char *class_name,
                                     const char *file, const void *data, size_t size);

/* Writes the directory, syncs the file and renames it to its path. MPTL_EDATA: no training images,
 * two images of the same name, a class of the test set that the training set does not have;
 * MPTL_EIO; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_packer_finish(mptl_packer *packer);

MPTL_API void mptl_packer_destroy(
    mptl_packer *packer); /* removes an unfinished file; NULL is allowed */

#endif

/* Inside the loader: the order of an epoch, and the preparation of an image for a batch. No threads
 * here. */
#ifndef MPTL_DATA_SAMPLE_H
#define MPTL_DATA_SAMPLE_H

#include "mptl/data.h"
#include "mptl/resample.h"

#define MPTL_CROP_PADDING 4 /* zeros on each side */

/* The number for each byte p of each channel: (p/255 - mean) / std, each operation rounded to
 * binary32 as in torchvision. */
typedef struct mptl_pixel_table {
  float value[MPTL_IMAGE_CHANNELS][256];
} mptl_pixel_table;

void mptl_pixel_table_init(mptl_pixel_table *table, const float *mean, const float *std);

/* Writes a permutation of 0 .. count-1 to order, each equally likely. */
void mptl_permutation(int32_t *order, int32_t count, uint64_t seed, uint32_t epoch);

/* Buffers and decoders with which a worker prepares images of a data set. One thread at a time uses
 * it. */
typedef struct mptl_sampler mptl_sampler;

mptl_status mptl_sampler_create(mptl_sampler **sampler, const mptl_dataset *dataset);
void mptl_sampler_destroy(mptl_sampler *sampler); /* NULL is allowed */

/* Writes image number `index` of the sampler's data set to out, [side][side][3], as
 * mptl_loader_options says. MPTL_EDATA, MPTL_EIO or MPTL_ENOMEM, with the name of the image, for
 * encoded images only. */
mptl_status mptl_sample(mptl_sampler *sampler, float *out, int32_t index,
                        const mptl_pixel_table *table, int augment, uint64_t seed, uint32_t epoch);

/* The crop that RandomResizedCrop makes of an image of width x height, for image number `index` of
 * the data set in an epoch; *flip says whether it is mirrored. */
MPTL_API mptl_box mptl_crop_draw(int *flip, int width, int height, uint64_t seed, uint32_t epoch,
                                 int32_t index);

#endif

/* Inside the loader: the order of an epoch, and one image's way into a batch. Pure functions, no threads. */
#ifndef MPTL_DATA_SAMPLE_H
#define MPTL_DATA_SAMPLE_H

#include "mptl/data.h"

#define MPTL_CROP_PADDING 4 /* zeros on each side */

/* Where the crop begins in the padded image, 0 to 2 * MPTL_CROP_PADDING, and whether it is mirrored afterwards. */
typedef struct mptl_crop {
  int x, y, flip;
} mptl_crop;

/* What a byte of each channel becomes: (p/255 - mean) / std, each operation rounded to binary32 as in torchvision. */
typedef struct mptl_pixel_table {
  float value[MPTL_IMAGE_CHANNELS][256];
} mptl_pixel_table;

void mptl_pixel_table_init(mptl_pixel_table *table, const float *mean, const float *std);

/* Writes a permutation of 0 .. count-1 to order, each equally likely. */
void mptl_permutation(int32_t *order, int32_t count, uint64_t seed, uint32_t epoch);

/* The crop of the data set's image index in an epoch. */
mptl_crop mptl_crop_draw(uint64_t seed, uint32_t epoch, int32_t index);

/* The crop that changes nothing. */
static inline mptl_crop mptl_crop_none(void) { return (mptl_crop){MPTL_CROP_PADDING, MPTL_CROP_PADDING, 0}; }

/* Crops, mirrors, normalises: image [3][32][32] of bytes to out [32][32][3]. The padding is the byte 0, so it comes out as
 * (0 - mean) / std. */
void mptl_image_load(float *out, const uint8_t *image, mptl_crop crop, const mptl_pixel_table *table);

#endif

/* Scaling of RGB images, as Pillow does it with its bilinear filter (Clark and others, Pillow,
 * src/libImaging/Resample.c). Each scaled pixel is a weighted mean of source pixels; the weights
 * form a triangle, which is wider if the image becomes smaller. Rows are scaled first, then
 * columns, and each result is rounded to bytes. The bytes are those of Pillow, with every
 * instruction set. */
#ifndef MPTL_RESAMPLE_H
#define MPTL_RESAMPLE_H

#include "mptl/jpeg.h"

typedef struct mptl_box {
  int x, y, width, height; /* pixels; x to the right, y down */
} mptl_box;

typedef struct mptl_resampler mptl_resampler; /* buffers; used by one thread at a time */

MPTL_API mptl_status mptl_resampler_create(mptl_resampler **resampler);
MPTL_API void mptl_resampler_destroy(mptl_resampler *resampler); /* NULL is allowed */

/* Computes the pixels inside `window` of Pillow's image.crop(from).resize((width, height),
 * BILINEAR). *out is [window.height][window.width][3]; it belongs to the resampler and is valid
 * until the next call. MPTL_EINVAL for a box that is empty or not within its image; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_resample(mptl_resampler *resampler, const uint8_t **out,
                                   const mptl_rgb *image, mptl_box from, int width, int height,
                                   mptl_box window);

#endif

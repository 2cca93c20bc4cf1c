/* The order of an epoch, and one image's way into a batch. */
#include "data/sample.h"

#include <string.h>

#include "data/dataset.h"
#include "kernels/random.h"

#define SIDE MPTL_IMAGE_SIDE
#define CHANNELS MPTL_IMAGE_CHANNELS

void mptl_pixel_table_init(mptl_pixel_table *table, const float *mean, const float *std) {
  for (int c = 0; c < CHANNELS; c++)
    for (int p = 0; p < 256; p++) table->value[c][p] = ((float)p / 255.0f - mean[c]) / std[c];
}

/* Uniform in 0 .. bound-1: the high word of a product, drawn again in the rare case that would favour some values
 * (Lemire, "Fast random integer generation in an interval", TOMACS 2019). Takes one or more numbers from *index on. */
static uint32_t random_below(uint32_t bound, mptl_key key, uint64_t *index) {
  uint32_t unfair = -bound % bound; /* 2^32 mod bound */
  for (;;) {
    uint64_t product = (uint64_t)mptl_random_u32(key, (*index)++, 0) * bound;
    if ((uint32_t)product >= unfair) return (uint32_t)(product >> 32);
  }
}

void mptl_permutation(int32_t *order, int32_t count, uint64_t seed, uint32_t epoch) {
  mptl_key key = mptl_make_key(seed, MPTL_STREAM_SHUFFLE, 0, epoch);
  uint64_t index = 0;
  for (int32_t i = 0; i < count; i++) order[i] = i;
  for (int32_t i = count - 1; i > 0; i--) { /* Fisher and Yates */
    uint32_t j = random_below((uint32_t)i + 1, key, &index);
    int32_t other = order[j];
    order[j] = order[i];
    order[i] = other;
  }
}

mptl_crop mptl_crop_draw(uint64_t seed, uint32_t epoch, int32_t index) {
  /* Three words of the image's own counter; a word favours some of the 9 places by less than 2^-28. */
  uint32_t words[4], places = 2 * MPTL_CROP_PADDING + 1;
  mptl_philox(words, mptl_make_key(seed, MPTL_STREAM_AUGMENT, MPTL_AUGMENT_CROP, epoch), (uint64_t)index, 0);
  return (mptl_crop){.x = (int)((uint64_t)words[0] * places >> 32),
                     .y = (int)((uint64_t)words[1] * places >> 32),
                     .flip = (int)(words[2] >> 31)};
}

/* One row of 32 pixels from padded rows of the three channels, beginning at x. */
static void load_row(float *out, uint8_t rows[CHANNELS][SIDE + 2 * MPTL_CROP_PADDING], mptl_crop crop,
                     const mptl_pixel_table *table) {
  int from = crop.flip ? crop.x + SIDE - 1 : crop.x, step = crop.flip ? -1 : 1;
  for (int x = 0; x < SIDE; x++, from += step)
    for (int c = 0; c < CHANNELS; c++) out[x * CHANNELS + c] = table->value[c][rows[c][from]];
}

void mptl_image_load(float *out, const uint8_t *image, mptl_crop crop, const mptl_pixel_table *table) {
  uint8_t rows[CHANNELS][SIDE + 2 * MPTL_CROP_PADDING] = {{0}}; /* the padding at both ends stays zero */
  for (int y = 0; y < SIDE; y++) {
    int from = y + crop.y - MPTL_CROP_PADDING;
    for (int c = 0; c < CHANNELS; c++) {
      uint8_t *row = rows[c] + MPTL_CROP_PADDING;
      if (from >= 0 && from < SIDE)
        memcpy(row, image + (c * SIDE + from) * SIDE, SIDE);
      else
        memset(row, 0, SIDE);
    }
    load_row(out + y * SIDE * CHANNELS, rows, crop, table);
  }
}

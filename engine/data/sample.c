/* The order of an epoch, and the preparation of an image for a batch. */
#include "data/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "kernels/random.h"

#define CHANNELS MPTL_IMAGE_CHANNELS
#define PADDING MPTL_CROP_PADDING

void mptl_pixel_table_init(mptl_pixel_table *table, const float *mean, const float *std) {
  for (int c = 0; c < CHANNELS; c++)
    for (int p = 0; p < 256; p++) table->value[c][p] = ((float)p / 255.0f - mean[c]) / std[c];
}

/* Uniform in 0 .. bound-1: the high word of a product. In the rare cases that would favour some
 * numbers it draws again (Lemire, "Fast random integer generation in an interval", TOMACS 2019).
 * Takes the random words from *index on, and moves *index beyond them. */
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

struct mptl_sampler {
  const mptl_dataset *dataset;
  /* For images in memory: [3][side + 2 * PADDING], a row of each channel; the padding at both ends
   * stays zero. */
  uint8_t *rows;
  mptl_encoded file; /* this and the fields below: for encoded images */
  mptl_decoder *decoder;
  mptl_resampler *resampler;
};

static size_t padded(const mptl_dataset *d) { return (size_t)d->side + 2 * PADDING; }

mptl_status mptl_sampler_create(mptl_sampler **sampler, const mptl_dataset *dataset) {
  mptl_sampler *s = calloc(1, sizeof *s);
  *sampler = NULL;
  if (s == NULL) return mptl_fail(MPTL_ENOMEM, "loader: no memory");
  s->dataset = dataset;
  mptl_status status = MPTL_OK;
  if (dataset->encoded == NULL) {
    s->rows = calloc(CHANNELS, padded(dataset));
    if (s->rows == NULL) status = mptl_fail(MPTL_ENOMEM, "loader: no memory");
  } else {
    status = mptl_decoder_create(&s->decoder);
    if (status == MPTL_OK) status = mptl_resampler_create(&s->resampler);
  }
  if (status == MPTL_OK)
    *sampler = s;
  else
    mptl_sampler_destroy(s);
  return status;
}

void mptl_sampler_destroy(mptl_sampler *sampler) {
  if (sampler == NULL) return;
  free(sampler->rows);
  mptl_encoded_free(&sampler->file);
  mptl_decoder_destroy(sampler->decoder);
  mptl_resampler_destroy(sampler->resampler);
  free(sampler);
}

/* Where a crop of side x side begins in the padded image, 0 to 2 * PADDING, and whether it is then
 * mirrored. */
typedef struct padded_crop {
  int x, y, flip;
} padded_crop;

static padded_crop draw_padded_crop(uint64_t seed, uint32_t epoch, int32_t index) {
  /* Three words of the counter of the image. A word favours some of the 9 offsets by less than
   * 2^-28. */
  uint32_t words[4], offsets = 2 * PADDING + 1;
  mptl_philox(words, mptl_make_key(seed, MPTL_STREAM_AUGMENT, MPTL_AUGMENT_CROP, epoch),
              (uint64_t)index, 0);
  return (padded_crop){.x = (int)((uint64_t)words[0] * offsets >> 32),
                       .y = (int)((uint64_t)words[1] * offsets >> 32),
                       .flip = (int)(words[2] >> 31)};
}

/* Crops, mirrors and normalises an image of bytes [3][side][side] to out [side][side][3]. Padding
 * is the byte 0, so it becomes (0 - mean) / std. rows is the buffer of the sampler. */
static inline void load_planes(float *out, const uint8_t *image, uint8_t *rows, int side,
                               padded_crop c, const mptl_pixel_table *table) {
  size_t n = (size_t)side, pitch = n + 2 * PADDING;
  for (int y = 0; y < side; y++, out += n * CHANNELS) {
    int from = y + c.y - PADDING;
    for (size_t p = 0; p < CHANNELS; p++) {
      if (from >= 0 && from < side)
        memcpy(rows + p * pitch + PADDING, image + (p * n + (size_t)from) * n, n);
      else
        memset(rows + p * pitch + PADDING, 0, n);
    }
    const uint8_t *pixel = rows + (c.flip ? c.x + side - 1 : c.x);
    ptrdiff_t stride = c.flip ? -1 : 1;
    for (size_t x = 0; x < n; x++, pixel += stride)
      for (size_t p = 0; p < CHANNELS; p++)
        out[x * CHANNELS + p] = table->value[p][pixel[p * pitch]];
  }
}

/* Mirrors and normalises pixels [side][side][3] to out, which has the same shape. */
static void load_pixels(float *out, const uint8_t *pixels, int side, int flip,
                        const mptl_pixel_table *table) {
  ptrdiff_t stride = flip ? -CHANNELS : CHANNELS;
  for (int y = 0; y < side; y++, pixels += side * CHANNELS) {
    const uint8_t *pixel = flip ? pixels + (side - 1) * CHANNELS : pixels;
    for (int x = 0; x < side; x++, pixel += stride, out += CHANNELS)
      for (int c = 0; c < CHANNELS; c++) out[c] = table->value[c][pixel[c]];
  }
}

static mptl_status decode(mptl_sampler *s, mptl_rgb *rgb, int32_t index) {
  const mptl_images *images = s->dataset->encoded;
  int64_t number = mptl_dataset_index(s->dataset, index);
  MPTL_TRY(mptl_images_read(images, number, &s->file));
  mptl_status status = mptl_decode(s->decoder, s->file.data, s->file.size, rgb);
  if (status != MPTL_OK)
    mptl_fail_in(status, "%s/%s", mptl_images_where(images), mptl_images_name(images, number));
  return status;
}

/* torchvision's Resize and CenterCrop: the shorter side becomes d->resize, and the longer one is
 * rounded down to whole pixels. */
static mptl_status scale_middle(mptl_sampler *s, const uint8_t **bytes, const mptl_rgb *image) {
  int side = s->dataset->side, resize = s->dataset->resize, width = resize, height = resize;
  if (image->width < image->height)
    height = (int)((int64_t)resize * image->height / image->width);
  else
    width = (int)((int64_t)resize * image->width / image->height);
  mptl_box all = {.width = image->width, .height = image->height};
  mptl_box window = {.x = (int)rint((width - side) / 2.0),
                     .y = (int)rint((height - side) / 2.0),
                     .width = side,
                     .height = side};
  return mptl_resample(s->resampler, bytes, image, all, width, height, window);
}

mptl_status mptl_sample(mptl_sampler *s, float *out, int32_t index, const mptl_pixel_table *table,
                        int augment, uint64_t seed, uint32_t epoch) {
  const mptl_dataset *d = s->dataset;
  if (d->encoded == NULL) {
    padded_crop c =
        augment ? draw_padded_crop(seed, epoch, index) : (padded_crop){PADDING, PADDING, 0};
    const uint8_t *image = d->images + (size_t)index * mptl_image_size(d);
    if (d->side == MPTL_CIFAR_SIDE) /* the compiler specialises the most used size */
      load_planes(out, image, s->rows, MPTL_CIFAR_SIDE, c, table);
    else
      load_planes(out, image, s->rows, d->side, c, table);
    return MPTL_OK;
  }
  mptl_rgb image;
  const uint8_t *bytes;
  int flip = 0;
  MPTL_TRY(decode(s, &image, index));
  if (augment) {
    mptl_box crop = mptl_crop_draw(&flip, image.width, image.height, seed, epoch, index);
    mptl_box all = {.width = d->side, .height = d->side};
    MPTL_TRY(mptl_resample(s->resampler, &bytes, &image, crop, d->side, d->side, all));
  } else {
    MPTL_TRY(scale_middle(s, &bytes, &image));
  }
  load_pixels(out, bytes, d->side, flip, table);
  return MPTL_OK;
}

mptl_status mptl_dataset_image(const mptl_dataset *d, int32_t i, uint8_t *bytes) {
  size_t area = (size_t)d->side * (size_t)d->side;
  if (d->encoded == NULL) {
    memcpy(bytes, d->images + (size_t)i * mptl_image_size(d), mptl_image_size(d));
    return MPTL_OK;
  }
  mptl_sampler *s;
  mptl_rgb image;
  const uint8_t *pixels;
  MPTL_TRY(mptl_sampler_create(&s, d));
  mptl_status status = decode(s, &image, i);
  if (status == MPTL_OK) status = scale_middle(s, &pixels, &image);
  for (size_t p = 0; status == MPTL_OK && p < area; p++)
    for (size_t c = 0; c < CHANNELS; c++) bytes[c * area + p] = pixels[p * CHANNELS + c];
  mptl_sampler_destroy(s);
  return status;
}

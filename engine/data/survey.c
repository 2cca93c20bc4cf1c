#include "mptl/survey.h"

#include <stdio.h>
#include <string.h>

#include "data/images.h"
#include "mptl/jpeg.h"

/* FNV-1a over eight bytes at a time, with high bits mixed into low ones after each. It finds equal
 * images; it is no protection against people who construct collisions. */
static uint64_t hash_bytes(const uint8_t *bytes, size_t size) {
  uint64_t h = 0xcbf29ce484222325u ^ size, word;
  for (; size >= 8; size -= 8, bytes += 8) {
    memcpy(&word, bytes, 8);
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
  }
  for (; size > 0; size--) h = (h ^ *bytes++) * 0x100000001b3u;
  return h ^ h >> 29;
}

static void add_pixels(mptl_image_facts *f, const mptl_rgb *rgb) {
  size_t n = (size_t)rgb->width * (size_t)rgb->height;
  uint64_t sum[3] = {0}, squares[3] = {0};
  for (size_t i = 0; i < n; i++) {
    for (int c = 0; c < 3; c++) {
      unsigned p = rgb->pixels[3 * i + (size_t)c];
      sum[c] += p;
      squares[c] += p * p;
    }
  }
  memcpy(f->sum, sum, sizeof sum);
  memcpy(f->squares, squares, sizeof squares);
  f->width = rgb->width;
  f->height = rgb->height;
  f->warnings = rgb->warnings;
}

static void survey_encoded(mptl_image_facts *f, mptl_decoder *decoder, const void *data,
                           size_t size) {
  mptl_rgb rgb;
  f->hash = hash_bytes(data, size);
  if (mptl_decode(decoder, data, size, &rgb) == MPTL_OK)
    add_pixels(f, &rgb);
  else
    snprintf(f->problem, sizeof f->problem, "%s", mptl_error());
}

/* Finds the facts of n images: of `encoded`, unless it is NULL; else of the collection. */
static mptl_status survey(mptl_image_facts *facts, const mptl_images *images, int64_t first,
                          const mptl_bytes *encoded, int64_t n, int threads) {
  int failed = 0;
  memset(facts, 0, (size_t)n * sizeof *facts);
#pragma omp parallel num_threads(threads) reduction(+ : failed)
  {
    mptl_decoder *decoder;
    mptl_encoded read = {0};
    failed = mptl_decoder_create(&decoder) != MPTL_OK;
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < n; i++) {
      if (failed) continue;
      if (encoded != NULL)
        survey_encoded(&facts[i], decoder, encoded[i].data, encoded[i].size);
      else if (images->reader->read(images, first + i, &read) ==
               MPTL_OK) /* mptl_images_read would name the image */
        survey_encoded(&facts[i], decoder, read.data, read.size);
      else
        snprintf(facts[i].problem, sizeof facts[i].problem, "%s", mptl_error());
    }
    mptl_encoded_free(&read);
    mptl_decoder_destroy(decoder);
  }
  return failed ? mptl_fail(MPTL_ENOMEM, "no memory to decode images") : MPTL_OK;
}

mptl_status mptl_survey_images(mptl_image_facts *facts, const mptl_images *images, int64_t first,
                               int64_t n, int threads) {
  return survey(facts, images, first, NULL, n, threads);
}

mptl_status mptl_survey_encoded(mptl_image_facts *facts, const mptl_bytes *encoded, int64_t n,
                                int threads) {
  return survey(facts, NULL, 0, encoded, n, threads);
}

mptl_status mptl_survey_dataset(mptl_image_facts *facts, const mptl_dataset *dataset, int64_t first,
                                int64_t n) {
  if (dataset->encoded != NULL)
    return mptl_fail(MPTL_EINVAL, "survey: a data set of encoded images, must be one in memory");
  const size_t size = mptl_image_size(dataset), plane = size / MPTL_IMAGE_CHANNELS;
  memset(facts, 0, (size_t)n * sizeof *facts);
  for (int64_t i = 0; i < n; i++) {
    const uint8_t *image = dataset->images + (size_t)(first + i) * size;
    for (size_t k = 0; k < size; k++) {
      facts[i].sum[k / plane] += image[k];
      facts[i].squares[k / plane] += (uint64_t)image[k] * image[k];
    }
    facts[i].width = facts[i].height = dataset->side;
    facts[i].hash = hash_bytes(image, size);
  }
  return MPTL_OK;
}

/* Random crops of images, as torchvision's RandomResizedCrop with its defaults, and flips. */
#include <math.h>

#include "data/dataset.h"
#include "data/sample.h"
#include "kernels/random.h"

enum {
  TRIES = 10,
  COUNTERS_AN_IMAGE = 16
}; /* a counter is four random words: a counter for each try, one for the flip */

#define AREA_MIN 0.08
#define SHAPE_MIN (3.0 / 4.0) /* width over height */
#define SHAPE_MAX (4.0 / 3.0)
#define LOG_SHAPE_MAX 0x1.269621134db91p-2

/* e^x for |x| < 0.3, by additions, multiplications and divisions only, so that every machine draws
 * the same crops. */
static double power_of_e(double x) {
  double sum = 1;
  for (int n = 14; n > 0; n--) sum = 1 + x / n * sum;
  return sum;
}

static double uniform(uint32_t word) { return word * 0x1p-32; } /* in [0, 1) */

static int below(uint32_t word, int bound) { return (int)((uint64_t)word * (uint64_t)bound >> 32); }

/* The largest crop in the middle whose shape is allowed. */
static mptl_box middle(int width, int height) {
  double shape = (double)width / height;
  int w = width, h = height;
  if (shape < SHAPE_MIN)
    h = (int)rint(width / SHAPE_MIN);
  else if (shape > SHAPE_MAX)
    w = (int)rint(height * SHAPE_MAX);
  return (mptl_box){.x = (width - w) / 2, .y = (height - h) / 2, .width = w, .height = h};
}

mptl_box mptl_crop_draw(int *flip, int width, int height, uint64_t seed, uint32_t epoch,
                        int32_t index) {
  mptl_key key = mptl_make_key(seed, MPTL_STREAM_AUGMENT, MPTL_AUGMENT_RESIZED_CROP, epoch);
  uint64_t first = (uint64_t)index * COUNTERS_AN_IMAGE;
  uint32_t words[4];
  mptl_philox(words, key, first + TRIES, 0);
  *flip = (int)(words[0] >> 31);
  for (int t = 0; t < TRIES; t++) {
    mptl_philox(words, key, first + (uint64_t)t, 0);
    double area = (double)width * height * (AREA_MIN + (1 - AREA_MIN) * uniform(words[0]));
    double shape = power_of_e(LOG_SHAPE_MAX * (2 * uniform(words[1]) - 1));
    double w = rint(sqrt(area * shape)), h = rint(sqrt(area / shape));
    if (w >= 1 && w <= width && h >= 1 && h <= height) {
      mptl_box crop = {.width = (int)w, .height = (int)h};
      crop.x = below(words[2], width - crop.width + 1);
      crop.y = below(words[3], height - crop.height + 1);
      return crop;
    }
  }
  return middle(width, height);
}

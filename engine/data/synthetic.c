/* The built-in data set: coloured gratings behind a soft window. Orientation and pitch distinguish
 * the classes.
 *
 * A class has one of 5 orientations, one of 4 pitches, and hues from half of the colour circle:
 * beyond 20 classes only the hues differ. Phase, window, contrast, background, noise and a second
 * grating without meaning vary from image to image. So single pixels say little, and a linear
 * classifier is hardly better than chance, but a small convolutional network learns the classes in
 * a few hundred steps. Orientations lie in a quarter turn and are mirrored at random, so a
 * left-right flip keeps the class.
 *
 * Only additions, multiplications, divisions and conversions of binary32 are used (a parabola
 * replaces the sine), so that every machine makes the same bytes.
 */
#include "data/dataset.h"
#include "kernels/random.h"

#define SIDE 32.0f           /* side of an image in its own units, for any number of pixels */
#define PARAMETER_COUNTERS 4 /* of four random words */
#define NOISE 18.0f          /* standard deviation, in units of a byte */

static const float directions[5][2] = {/* cosine and sine of 0, 22.5, 45, 67.5 and 90 degrees */
                                       {1.0f, 0.0f},
                                       {0.92387953f, 0.38268343f},
                                       {0.70710678f, 0.70710678f},
                                       {0.38268343f, 0.92387953f},
                                       {0.0f, 1.0f}};
static const float pitches[4] = {3.0f, 5.0f, 8.0f, 2.0f}; /* waves in an image */

typedef struct grating {
  uint32_t phase, dx, dy; /* in turns of 2^-32; per pixel to the right and down */
} grating;

typedef struct parameters {
  float uniform[4 * PARAMETER_COUNTERS]; /* in [0, 1) */
  int next;
} parameters;

static float draw(parameters *p, float low, float high) {
  return low + (high - low) * p->uniform[p->next++];
}

/* Turns in units of 2^-32 turns; whole turns become 0. */
static uint32_t turn(float turns) { return (uint32_t)(int64_t)(turns * 0x1p32f); }

/* Close to the sine of the phase, in [-1, 1]. */
static float wave(uint32_t phase) {
  float t = (float)(int32_t)phase * 0x1p-31f;
  return 4.0f * t * (1.0f - (t < 0 ? -t : t));
}

static grating make_grating(float cosine, float sine, float pitch, float phase) {
  return (grating){.phase = turn(phase), .dx = turn(pitch * cosine), .dy = turn(pitch * sine)};
}

static grating class_grating(parameters *p, int label, int side) {
  const float *direction = directions[label % 5];
  float tilt = draw(p, -0.16f, 0.16f); /* radians, small */
  float mirror = draw(p, -1.0f, 1.0f) < 0 ? -1.0f : 1.0f;
  float pitch = pitches[label / 5 % 4] * draw(p, 0.88f, 1.12f);
  float phase = draw(p, 0.0f, 1.0f);
  return make_grating(mirror * (direction[0] - tilt * direction[1]),
                      direction[1] + tilt * direction[0], pitch / (float)side, phase);
}

/* A weaker grating of any direction and pitch, which says nothing about the class. */
static grating distracting_grating(parameters *p, int side) {
  uint32_t angle = turn(draw(p, 0.0f, 1.0f));
  float pitch = draw(p, 1.5f, 9.0f);
  float phase = draw(p, 0.0f, 1.0f);
  return make_grating(wave(angle + (1u << 30)), wave(angle), pitch / (float)side, phase);
}

/* An image, except its noise. */
typedef struct scene {
  grating main, other;
  float contrast, other_contrast;      /* amplitudes, in units of a byte */
  float centre_x, centre_y, sharpness; /* of the window, 1 / (1 + sharpness * distance^2)^2 */
  float colour[MPTL_IMAGE_CHANNELS], background[MPTL_IMAGE_CHANNELS];
} scene;

static scene make_scene(mptl_key key, uint64_t first_counter, int label, int side) {
  parameters p = {.next = 0};
  for (int b = 0; b < PARAMETER_COUNTERS; b++) {
    uint32_t words[4];
    mptl_philox(words, key, first_counter + (uint64_t)b, 0);
    for (int i = 0; i < 4; i++) p.uniform[4 * b + i] = (float)(words[i] >> 8) * 0x1p-24f;
  }
  scene s;
  s.main = class_grating(&p, label, side);
  s.other = distracting_grating(&p, side);
  s.contrast = draw(&p, 50.0f, 160.0f);
  s.other_contrast = draw(&p, 0.0f, 25.0f);
  s.centre_x = draw(&p, 9.0f, 23.0f);
  s.centre_y = draw(&p, 9.0f, 23.0f);
  s.sharpness = 1.0f / draw(&p, 60.0f, 180.0f);
  uint32_t hue = turn((float)label * 0.618034f + draw(&p, 0.0f, 0.5f));
  for (int c = 0; c < MPTL_IMAGE_CHANNELS; c++)
    s.colour[c] = 0.65f + 0.35f * wave(hue + (uint32_t)c * 0x55555555u);
  s.background[0] = draw(&p, 80.0f, 176.0f);
  s.background[1] = draw(&p, 80.0f, 176.0f);
  s.background[2] = 256.0f - 0.5f * (s.background[0] + s.background[1]);
  return s;
}

/* The number of random counters of an image, a power of two: first those of the parameters, then
 * one for the noise of each pixel; the rest are not used. */
static uint64_t counters_an_image(int side) {
  uint64_t needed = PARAMETER_COUNTERS + (uint64_t)side * (uint64_t)side, counters = 1;
  while (counters < needed) counters *= 2;
  return counters;
}

static void paint(uint8_t *image, mptl_key key, uint64_t index, int label, int side) {
  uint64_t first_counter = index * counters_an_image(side);
  uint32_t n = (uint32_t)side;
  scene s = make_scene(key, first_counter, label, side);
  float unit = SIDE / (float)side;
  for (uint32_t y = 0; y < n; y++) {
    for (uint32_t x = 0; x < n; x++) {
      float away_x = (float)x * unit - s.centre_x, away_y = (float)y * unit - s.centre_y;
      float window = 1.0f / (1.0f + (away_x * away_x + away_y * away_y) * s.sharpness);
      float pattern =
          s.contrast * window * window * wave(s.main.phase + x * s.main.dx + y * s.main.dy);
      float grey = s.other_contrast * wave(s.other.phase + x * s.other.dx + y * s.other.dy);
      uint32_t pixel = y * n + x, words[4];
      mptl_philox(words, key, first_counter + PARAMETER_COUNTERS + pixel, 0);
      for (uint32_t c = 0; c < MPTL_IMAGE_CHANNELS; c++) {
        uint32_t w =
            words[c]; /* the sum of its four bytes is close to normal: mean 510, deviation 147.8 */
        int sum = (int)((w & 255) + (w >> 8 & 255) + (w >> 16 & 255) + (w >> 24));
        float value =
            s.background[c] + s.colour[c] * pattern + grey + (float)(sum - 510) * (NOISE / 147.8f);
        image[c * n * n + pixel] = (uint8_t)(value <= 0     ? 0
                                             : value >= 255 ? 255
                                                            : (int)(value + 0.5f));
      }
    }
  }
}

static mptl_key key_of(uint64_t seed, mptl_split split) {
  uint32_t number =
      split == MPTL_TRAIN ? MPTL_AUGMENT_SYNTHETIC_TRAIN : MPTL_AUGMENT_SYNTHETIC_TEST;
  return mptl_make_key(seed, MPTL_STREAM_AUGMENT, number, 0);
}

static mptl_status check_classes(int classes) {
  if (classes >= 2 && classes <= 100) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "classes: %d, accepted are 2 to 100", classes);
}

mptl_status mptl_synthetic_image(uint8_t *planes, int64_t index, int classes, int side,
                                 uint64_t seed, mptl_split split) {
  if (index < 0)
    return mptl_fail(MPTL_EINVAL, "index: %lld, must not be negative", (long long)index);
  if (side < 1 || side > MPTL_IMAGE_SIDE_MAX)
    return mptl_fail(MPTL_EINVAL, "side: %d pixels, accepted are 1 to %d", side,
                     MPTL_IMAGE_SIDE_MAX);
  MPTL_TRY(check_classes(classes));
  paint(planes, key_of(seed, split), (uint64_t)index, (int)(index % classes), side);
  return MPTL_OK;
}

mptl_status mptl_dataset_synthetic(mptl_dataset **dataset, int64_t count, int classes, int side,
                                   uint64_t seed, mptl_split split, int64_t limit) {
  *dataset = NULL;
  if (count < 1)
    return mptl_fail(MPTL_EINVAL, "count: %lld images, must be positive", (long long)count);
  MPTL_TRY(check_classes(classes));
  MPTL_TRY(mptl_dataset_allocate(dataset, count, classes, side, split, limit));
  mptl_dataset *d = *dataset;
  mptl_key key = key_of(seed, split);
  for (int64_t i = 0; i < d->count; i++) {
    d->labels[i] = (int32_t)(i % classes);
    paint(d->images + (size_t)i * mptl_image_size(d), key, (uint64_t)i, d->labels[i], side);
  }
  return MPTL_OK;
}

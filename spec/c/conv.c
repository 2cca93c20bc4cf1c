/* The binary32 passes of convolutions against their definition (engine/backend/cpu/conv.h), chains
 * of fmaf in plain loops: the same bits with every instruction set and number of threads, nothing
 * written outside of results, packed weights and scratch memory. */
#include <math.h>

#include "backend/cpu/conv.h"
#include "conv_shapes.h"
#include "mptl/isa.h"

static size_t at4(int a, int b, int c, int d, int nb, int nc, int nd) {
  return (((size_t)a * (size_t)nb + (size_t)b) * (size_t)nc + (size_t)c) * (size_t)nd + (size_t)d;
}

typedef struct operands {
  mptl_conv_shape s;
  float *x, *w, *y, *bias;
} operands;

/* Whether a row of a window is a row of the input: else it is left out. */
static bool inside(const mptl_conv_shape *s, int oy, int ky) {
  const int y = oy * s->sh - s->ph + ky * s->dh;
  return y >= 0 && y < s->ih;
}

static float x_at(const operands *o, int n, int y, int x, int c) {
  const mptl_conv_shape *s = &o->s;
  bool there = y >= 0 && y < s->ih && x >= 0 && x < s->iw;
  return there ? o->x[at4(n, y, x, c, s->ih, s->iw, s->ic)] : 0.0f;
}

static float w_at(const operands *o, int oc, int ic, int ky, int kx) {
  const mptl_conv_shape *s = &o->s;
  return o->w[at4(oc, ic, ky, kx, s->ic / s->groups, s->kh, s->kw)];
}

static float forward(const operands *o, int n, int oy, int ox, int oc) {
  const mptl_conv_shape *s = &o->s;
  int icg = s->ic / s->groups, first = oc / (s->oc / s->groups) * icg;
  float c = 0;
  for (int ky = 0; ky < s->kh; ky++)
    for (int kx = 0; kx < s->kw && inside(s, oy, ky); kx++)
      for (int ic = 0; ic < icg; ic++)
        c = fmaf(x_at(o, n, oy * s->sh - s->ph + ky * s->dh, ox * s->sw - s->pw + kx * s->dw,
                      first + ic),
                 w_at(o, oc, ic, ky, kx), c);
  return o->bias != NULL ? c + o->bias[oc] : c;
}

static float backward_data(const operands *o, int n, int iy, int ix, int ic) {
  const mptl_conv_shape *s = &o->s;
  int icg = s->ic / s->groups, ocg = s->oc / s->groups, first = ic / icg * ocg;
  float c = 0;
  for (int ky = s->kh - 1; ky >= 0; ky--)
    for (int kx = s->kw - 1; kx >= 0; kx--) {
      int y = iy + s->ph - ky * s->dh, x = ix + s->pw - kx * s->dw;
      if (y < 0 || x < 0 || y % s->sh != 0 || x % s->sw != 0 || y / s->sh >= s->oh ||
          x / s->sw >= s->ow)
        continue;
      for (int oc = first; oc < first + ocg; oc++)
        c = fmaf(o->y[at4(n, y / s->sh, x / s->sw, oc, s->oh, s->ow, s->oc)],
                 w_at(o, oc, ic % icg, ky, kx), c);
    }
  return c;
}

/* The end of the block that begins with an output row; rows count over all images. A block is the
 * fewest images, or of an image the fewest rows, with 256 pixels. */
static int next_block(const mptl_conv_shape *s, int row) {
  int rows = 1, end = s->n * s->oh;
  while (rows * s->ow < 256) rows++;
  if (s->oh * s->ow < 256)
    for (rows = s->oh; rows * s->ow < 256;) rows += s->oh;
  else
    end = (row / s->oh + 1) * s->oh;
  return row + rows < end ? row + rows : end;
}

/* How many images a block is of: it goes over their first rows, their second rows, and so on. */
static int images_of_block(const mptl_conv_shape *s, int from, int end) {
  return end - from < s->oh ? 1 : (end - from) / s->oh;
}

/* The place of pixel i of a block in y. */
static size_t pixel_of_block(const mptl_conv_shape *s, int from, int end, int i) {
  const int images = images_of_block(s, from, end), line = i / s->ow;
  const int row = from + line % images * s->oh + line / images;
  return (size_t)row * (size_t)s->ow + (size_t)(i % s->ow);
}

static float backward_weights(const operands *o, int oc, int ic, int ky, int kx) {
  const mptl_conv_shape *s = &o->s;
  int first = oc / (s->oc / s->groups) * (s->ic / s->groups);
  float sum = 0;
  for (int from = 0, end; from < s->n * s->oh; from = end) {
    float c = 0;
    end = next_block(s, from);
    for (int i = 0; i < (end - from) * s->ow; i++) {
      const size_t pixel = pixel_of_block(s, from, end, i);
      const int row = (int)(pixel / (size_t)s->ow), x = (int)(pixel % (size_t)s->ow);
      if (inside(s, row % s->oh, ky))
        c = fmaf(x_at(o, row / s->oh, row % s->oh * s->sh - s->ph + ky * s->dh,
                      x * s->sw - s->pw + kx * s->dw, first + ic),
                 o->y[pixel * (size_t)s->oc + (size_t)oc], c);
    }
    sum = from == 0 ? c : sum + c;
  }
  return sum;
}

static float backward_bias(const operands *o, int oc) {
  const mptl_conv_shape *s = &o->s;
  float sum = 0;
  for (int from = 0, end; from < s->n * s->oh; from = end) {
    float c = 0;
    end = next_block(s, from);
    for (int i = 0; i < (end - from) * s->ow; i++)
      c += o->y[pixel_of_block(s, from, end, i) * (size_t)s->oc + (size_t)oc];
    sum = from == 0 ? c : sum + c;
  }
  return sum;
}

/* What a pass must give. */
static float *expect(const operands *o, mptl_pass pass) {
  const mptl_conv_shape *s = &o->s;
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(s);
  float *e = malloc(sizes.n[mptl_arrays_of(pass).result] * sizeof *e), *to = e;
  if (e == NULL) abort();
  if (pass == MPTL_FORWARD)
    for (int n = 0; n < s->n; n++)
      for (int y = 0; y < s->oh; y++)
        for (int x = 0; x < s->ow; x++)
          for (int c = 0; c < s->oc; c++) *to++ = forward(o, n, y, x, c);
  if (pass == MPTL_BACKWARD_DATA)
    for (int n = 0; n < s->n; n++)
      for (int y = 0; y < s->ih; y++)
        for (int x = 0; x < s->iw; x++)
          for (int c = 0; c < s->ic; c++) *to++ = backward_data(o, n, y, x, c);
  if (pass == MPTL_BACKWARD_WEIGHTS)
    for (int oc = 0; oc < s->oc; oc++)
      for (int ic = 0; ic < s->ic / s->groups; ic++)
        for (int y = 0; y < s->kh; y++)
          for (int x = 0; x < s->kw; x++) *to++ = backward_weights(o, oc, ic, y, x);
  return e;
}

static void compare(const operands *o, mptl_pass pass, int threads, const char *what,
                    const float *got, const float *expected, size_t n) {
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < n; i++)
    if (memcmp(&got[i], &expected[i], sizeof *got) != 0 && wrong++ == 0) first = i;
  CHECK(wrong == 0,
        "%s, %s, %s, %d threads: %s: %zu of %zu wrong, first at %zu: %.9g, expected %.9g",
        mptl_conv_name(&o->s).text, mptl_pass_name(pass), mptl_isa_name(), threads, what, wrong, n,
        first, (double)got[first], (double)expected[first]);
}

static void check_pass(const operands *o, mptl_pass pass, int threads, const float *expected) {
  const mptl_conv_shape *s = &o->s;
  const size_t n = mptl_conv_sizes_of(s).n[mptl_arrays_of(pass).result];
  mptl_conv *conv;
  MUST(mptl_conv_create(&conv, threads, s, pass));
  array results = array_create(n * sizeof(float)),
        dbias = array_create((size_t)s->oc * sizeof(float));
  mptl_format format;
  mptl_rounder exact;
  MUST(mptl_format_parse(&format, "fp32"));
  mptl_rounder_init(&exact, format, MPTL_NEAREST_EVEN, MPTL_INF);
  const mptl_source x = {o->x, sizeof(float), NULL}, dy = {o->y, sizeof(float), NULL};
  const mptl_sink sink = {.data = array_at(results), .size = sizeof(float), .rounder = &exact};
  array packed = array_create(mptl_conv_packed_bytes(conv)),
        scratch = array_create(mptl_conv_scratch_bytes(conv, sizeof(float), &sink));
  if (pass != MPTL_BACKWARD_WEIGHTS) mptl_conv_pack(conv, array_at(packed), o->w);
  if (pass == MPTL_FORWARD)
    mptl_conv_forward(conv, &sink, &x, array_at(packed), o->bias, array_at(scratch));
  if (pass == MPTL_BACKWARD_DATA)
    mptl_conv_backward_data(conv, &sink, &dy, array_at(packed), array_at(scratch));
  if (pass == MPTL_BACKWARD_WEIGHTS) {
    mptl_conv_backward_weights(conv, array_at(results), s->bias ? array_at(dbias) : NULL, &x, &dy,
                               array_at(scratch));
    for (int c = 0; s->bias && c < s->oc; c++) {
      float right = backward_bias(o, c);
      compare(o, pass, threads, "dbias", (float *)array_at(dbias) + c, &right, 1);
    }
  }
  compare(o, pass, threads, "results", array_at(results), expected, n);
  CHECK(array_destroy(packed) & array_destroy(scratch), "%s: wrote outside of its memory",
        mptl_conv_name(s).text);
  CHECK(array_destroy(results) & array_destroy(dbias), "%s: wrote outside of its results",
        mptl_conv_name(s).text);
  mptl_conv_destroy(conv);
}

static float *random_array(size_t n, uint64_t *state) {
  float *x = malloc(n * sizeof *x);
  if (x == NULL) abort();
  for (size_t i = 0; i < n; i++) x[i] = random_value(REALS, state);
  return x;
}

static void check(mptl_conv_shape s, uint64_t *state) {
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(&s);
  MUST(mptl_conv_check(&s));
  operands o = {s, random_array(sizes.n[MPTL_X], state), random_array(sizes.n[MPTL_W], state),
                random_array(sizes.n[MPTL_Y], state),
                s.bias ? random_array((size_t)s.oc, state) : NULL};
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    float *expected = expect(&o, (mptl_pass)pass);
    const char *isa;
    for (size_t i = 0; (isa = mptl_isa_here(i)) != NULL; i++) {
      MUST(mptl_isa_select(isa));
      for (int threads = 1; threads <= 7; threads += 3)
        check_pass(&o, (mptl_pass)pass, threads, expected);
    }
    free(expected);
  }
  free(o.x), free(o.w), free(o.y), free(o.bias);
}

static mptl_conv_shape random_shape(uint64_t *state) {
  mptl_conv_shape s = {.n = 1 + (int)(random_bits(state) % 5), .bias = random_bits(state) % 2 == 0};
  s.groups = random_bits(state) % 3 == 0 ? 1 + (int)(random_bits(state) % 4) : 1;
  s.ic = s.groups * (1 + (int)(random_bits(state) % 20));
  s.oc = s.groups * (1 + (int)(random_bits(state) % 70));
  if (random_bits(state) % 4 == 0) s.ic = s.oc = s.groups = 1 + (int)(random_bits(state) % 70);
  random_axis(&s.ih, &s.oh, &s.kh, &s.sh, &s.ph, &s.dh, state);
  random_axis(&s.iw, &s.ow, &s.kw, &s.sw, &s.pw, &s.dw, state);
  return s;
}

int main(void) {
  const mptl_conv_shape shapes[] = {
      {9, 20, 12, 12, 40, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1,
       true}, /* blocks of two images, the last one smaller */
      {2, 9, 20, 30, 17, 20, 30, 3, 3, 1, 1, 1, 1, 1, 1, 1,
       true}, /* blocks of 9 rows, the last one of 2 */
      {2, 3, 17, 17, 20, 9, 9, 7, 7, 2, 2, 3, 3, 1, 1, 1, true},  /* an ImageNet stem */
      {2, 16, 8, 8, 24, 4, 4, 1, 1, 2, 2, 0, 0, 1, 1, 1, false},  /* pixels that no window reads */
      {3, 16, 6, 6, 16, 6, 6, 3, 3, 1, 1, 1, 1, 1, 1, 16, false}, /* depthwise */
      {2, 16, 1, 1, 16, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1,
       false}, /* a window larger than the input */
      {1, 40, 100, 60, 40, 100, 60, 3, 1, 1, 1, 1, 0, 1, 1, 1, true},  /* parts of an image */
      {1, 40, 70, 60, 40, 148, 60, 3, 1, 1, 1, 40, 0, 1, 1, 1, true},  /* some are all padding */
      {1, 40, 100, 60, 40, 50, 30, 3, 3, 2, 2, 1, 1, 1, 1, 40, false}, /* the same, depthwise */
      {5, 130, 9, 7, 24, 9, 7, 1, 1, 1, 1, 0, 0, 1, 1, 1, false}, /* more channels in than out */
      {9, 37, 2, 2, 36, 2, 2, 1, 1, 1, 1, 0, 0, 1, 1, 1, false},  /* small images of these */
      {300, 65, 1, 1, 10, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, true}, /* a linear layer */
      {5, 16, 4, 4, 10, 1, 1, 4, 4, 1, 1, 0, 0, 1, 1, 1, true},   /* the same of flattened images */
  };
  uint64_t state = 1;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(shapes[i], &state);
  for (int i = 0; i < 60; i++) check(random_shape(&state), &state);
  printf("%zu convolutions, %d failures\n", sizeof shapes / sizeof *shapes + 60, failures);
  return failures != 0;
}

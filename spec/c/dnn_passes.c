/* Every pass of convolution and linear operators against plain loops in binary64: within the bound
 * of binary32 sums on reals, equal on small integers, the same bits each time, nothing written
 * outside of the results. */
#include <omp.h>

#include "backend/cpu/dnn.h"
#include "dnn_check.h"

/* The reference treats a linear operator as a convolution whose kernel covers the input. */
typedef struct problem {
  mptl_conv_shape s;
  bool linear;
} problem;

static size_t src_count(const mptl_conv_shape *s) { return (size_t)s->n * s->ih * s->iw * s->ic; }
static size_t dst_count(const mptl_conv_shape *s) { return (size_t)s->n * s->oh * s->ow * s->oc; }
static size_t weights_count(const mptl_conv_shape *s) {
  return (size_t)s->oc * (s->ic / s->groups) * s->kh * s->kw;
}

/* Calls sum(context, i of src, i of weights, i of dst) for each product of the operator. */
typedef void visit(void *context, size_t x, size_t w, size_t y);
static void each_product(const mptl_conv_shape *s, visit *sum, void *context) {
  int icg = s->ic / s->groups, ocg = s->oc / s->groups;
  for (int n = 0; n < s->n; n++)
    for (int oy = 0; oy < s->oh; oy++)
      for (int ox = 0; ox < s->ow; ox++)
        for (int oc = 0; oc < s->oc; oc++)
          for (int ic = 0; ic < icg; ic++)
            for (int ky = 0; ky < s->kh; ky++)
              for (int kx = 0; kx < s->kw; kx++) {
                int iy = oy * s->sh - s->ph + ky * s->dh, ix = ox * s->sw - s->pw + kx * s->dw;
                if (iy < 0 || iy >= s->ih || ix < 0 || ix >= s->iw) continue;
                sum(context, (((size_t)n * s->ih + iy) * s->iw + ix) * s->ic + oc / ocg * icg + ic,
                    (((size_t)oc * icg + ic) * s->kh + ky) * s->kw + kx,
                    (((size_t)n * s->oh + oy) * s->ow + ox) * s->oc + oc);
              }
}

/* Sums and sums of magnitudes of each pass, and of the bias gradient. */
typedef struct expected {
  const float *x, *w, *y;
  double *sum[MPTL_PASSES], *magnitude[MPTL_PASSES];
} expected;

static void visit_product(void *context, size_t x, size_t w, size_t y) {
  expected *e = context;
  const size_t at[MPTL_PASSES] = {y, x, w};
  const double product[MPTL_PASSES] = {(double)e->x[x] * e->w[w], (double)e->y[y] * e->w[w],
                                       (double)e->x[x] * e->y[y]};
  for (int i = 0; i < MPTL_PASSES; i++)
    e->sum[i][at[i]] += product[i], e->magnitude[i][at[i]] += fabs(product[i]);
}

/* Rounding errors of k additions are each at most eps/2 of a partial sum; their random signs keep
 * the total within a few eps of the sum of magnitudes. Operands cut to bf16 would miss this by
 * orders of magnitude. */
static void compare(const char *name, const char *what, const float *got, const double *sum,
                    const double *magnitude, size_t count, bool exact) {
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < count; i++)
    if (!(fabs(got[i] - sum[i]) <= (exact ? 0 : 4 * 0x1p-23 * magnitude[i])) && wrong++ == 0)
      first = i;
  CHECK(wrong == 0, "%s: %s: %zu of %zu wrong, first at %zu: %.9g, expected %.9g", name, what,
        wrong, count, first, got[first], sum[first]);
}

static void fill(float *x, size_t count, values kind, uint64_t *state) {
  for (size_t i = 0; i < count; i++) x[i] = random_value(kind, state);
}

/* The operand as the pass wants it: itself, or a bf16 copy. */
static const void *operand(array *copy, const float *x, size_t count, mptl_compute compute) {
  if (compute == MPTL_COMPUTE_F32) return x;
  uint16_t *to = array_at(*copy = array_create(count * 2));
  const uint16_t *from = (const uint16_t *)x;
  for (size_t i = 0; i < count; i++) to[i] = from[2 * i + 1]; /* little endian */
  return to;
}

/* An overflow in the gradient of the output must reach every gradient that it is part of: the loss
 * scale is decided by it. It may reach others in its block of `block` elements only (see dnn.h), 1
 * for no others. */
static void compare_infinite(const char *name, const char *what, const float *got,
                             const double *sum, size_t count, size_t block) {
  size_t lost = 0, gained = 0;
  for (size_t first = 0; first < count; first += block) {
    bool reached = false;
    for (size_t i = first; i < first + block; i++) reached |= !isfinite(sum[i]);
    for (size_t i = first; i < first + block; i++)
      lost += !isfinite(sum[i]) && isfinite(got[i]), gained += !reached && !isfinite(got[i]);
  }
  CHECK(lost == 0, "%s: %s: infinity lost in %zu of %zu", name, what, lost, count);
  CHECK(gained == 0, "%s: %s: infinity in %zu too many of %zu", name, what, gained, count);
}

/* Outputs of one run over fresh memory. */
typedef struct outputs {
  array pass[MPTL_PASSES], bias;
} outputs;

static mptl_status create(mptl_dnn **op, const problem *p, mptl_compute compute) {
  int threads = omp_get_max_threads();
  const mptl_compute computes[MPTL_PASSES] = {compute, compute, compute};
  const mptl_linear_shape linear = {p->s.n, p->s.ic, p->s.ih, p->s.iw, p->s.oc, p->s.bias};
  return p->linear ? mptl_dnn_linear_create(op, threads, &linear, computes)
                   : mptl_dnn_conv_create(op, threads, &p->s, computes);
}

static outputs run(const problem *p, mptl_compute compute, const float *x, const float *w,
                   const float *y, const float *b) {
  const mptl_conv_shape *s = &p->s;
  mptl_dnn *op;
  MUST(create(&op, p, compute));
  outputs o = {{array_create(dst_count(s) * 4), array_create(src_count(s) * 4),
                array_create(weights_count(s) * 4)},
               array_create((size_t)s->oc * 4)};
  array forward = array_create(mptl_dnn_packed_bytes(op, MPTL_FORWARD)),
        backward = array_create(mptl_dnn_packed_bytes(op, MPTL_BACKWARD_DATA));
  array scratch = array_create(mptl_dnn_scratch_bytes(op)), xs = {NULL, 0}, ys = {NULL, 0};
  const void *src = operand(&xs, x, src_count(s), compute),
             *diff_dst = operand(&ys, y, dst_count(s), compute);
  mptl_dnn_use_scratch(op, array_at(scratch));
  MUST(mptl_dnn_pack(op, MPTL_FORWARD, array_at(forward), w));
  MUST(mptl_dnn_pack(op, MPTL_BACKWARD_DATA, array_at(backward), w));
  MUST(mptl_dnn_forward(op, array_at(o.pass[0]), src, array_at(forward), b));
  memset(array_at(scratch), 0xff, scratch.bytes);
  MUST(mptl_dnn_backward_data(op, array_at(o.pass[1]), diff_dst, array_at(backward)));
  memset(array_at(scratch), 0xff, scratch.bytes);
  MUST(mptl_dnn_backward_weights(op, array_at(o.pass[2]), s->bias ? array_at(o.bias) : NULL, src,
                                 diff_dst));
  CHECK(array_destroy(forward) & array_destroy(backward), "%s: wrote outside of the packed weights",
        mptl_dnn_describe(op));
  CHECK(array_destroy(scratch), "%s: wrote outside of the scratch", mptl_dnn_describe(op));
  if (compute == MPTL_COMPUTE_BF16)
    CHECK(array_destroy(xs) & array_destroy(ys), "%s: wrote to its operands",
          mptl_dnn_describe(op));
  mptl_dnn_destroy(op);
  return o;
}

static void check(const problem *p, mptl_compute compute, values kind) {
  const mptl_conv_shape *s = &p->s;
  const size_t counts[MPTL_PASSES] = {dst_count(s), src_count(s), weights_count(s)};
  float *x = malloc(src_count(s) * 4), *w = malloc(weights_count(s) * 4),
        *y = malloc(dst_count(s) * 4);
  float *b = s->bias ? malloc((size_t)s->oc * 4) : NULL;
  uint64_t state = 1;
  fill(x, src_count(s), kind, &state), fill(w, weights_count(s), kind, &state),
      fill(y, dst_count(s), kind, &state);
  if (b) fill(b, (size_t)s->oc, kind, &state);
  if (kind == OVERFLOW) y[dst_count(s) / 2] = INFINITY;

  expected e = {.x = x, .w = w, .y = y};
  for (int i = 0; i < MPTL_PASSES; i++)
    e.sum[i] = calloc(counts[i], 8), e.magnitude[i] = calloc(counts[i], 8);
  each_product(s, visit_product, &e);
  for (size_t i = 0; b && i < counts[0]; i++)
    e.sum[0][i] += b[i % (size_t)s->oc], e.magnitude[0][i] += fabs(b[i % (size_t)s->oc]);

  mptl_dnn *op;
  MUST(create(&op, p, compute));
  char name[256];
  snprintf(name, sizeof name, "%s, %s", mptl_dnn_describe(op),
           compute == MPTL_COMPUTE_F32 ? "f32" : "bf16");
  mptl_dnn_destroy(op);
  outputs one = run(p, compute, x, w, y, b), two = run(p, compute, x, w, y, b);
  static const char *const what[] = {"dst", "diff_src", "diff_weights"};
  for (int i = 0; i < MPTL_PASSES; i++) {
    if (kind == OVERFLOW)
      compare_infinite(name, what[i], array_at(one.pass[i]), e.sum[i], counts[i],
                       i == MPTL_BACKWARD_WEIGHTS ? counts[i] / (size_t)s->oc : 1);
    else
      compare(name, what[i], array_at(one.pass[i]), e.sum[i], e.magnitude[i], counts[i],
              kind == INTEGERS);
    CHECK(memcmp(array_at(one.pass[i]), array_at(two.pass[i]), counts[i] * 4) == 0,
          "%s: %s: two runs differ", name, what[i]);
    CHECK(array_destroy(one.pass[i]) & array_destroy(two.pass[i]), "%s: wrote outside of %s", name,
          what[i]);
  }
  if (b && kind != OVERFLOW) {
    double *sum = calloc((size_t)s->oc, 8), *magnitude = calloc((size_t)s->oc, 8);
    for (size_t i = 0; i < counts[0]; i++)
      sum[i % (size_t)s->oc] += y[i], magnitude[i % (size_t)s->oc] += fabs(y[i]);
    compare(name, "diff_bias", array_at(one.bias), sum, magnitude, (size_t)s->oc, kind == INTEGERS);
    CHECK(memcmp(array_at(one.bias), array_at(two.bias), (size_t)s->oc * 4) == 0,
          "%s: diff_bias: two runs differ", name);
    free(sum), free(magnitude);
  }
  CHECK(array_destroy(one.bias) & array_destroy(two.bias), "%s: wrote outside of diff_bias", name);
  for (int i = 0; i < MPTL_PASSES; i++) free(e.sum[i]), free(e.magnitude[i]);
  free(x), free(w), free(y), free(b);
}

/* A square convolution of an h by h input. */
static problem conv(int n, int ic, int h, int oc, int k, int stride, int pad, int dilation,
                    int groups, bool bias) {
  int out = (h + 2 * pad - dilation * (k - 1) - 1) / stride + 1;
  return (problem){
      {n, ic, h, h, oc, out, out, k, k, stride, stride, pad, pad, dilation, dilation, groups, bias},
      false};
}

static problem linear(int n, int c, int h, int w, int out, bool bias) {
  return (problem){{n, c, h, w, out, 1, 1, h, w, 1, 1, 0, 0, 1, 1, 1, bias}, true};
}

int main(void) {
  const problem problems[] = {
      conv(2, 16, 8, 16, 3, 1, 1, 1, 1, false), /* 3x3, the common one */
      conv(3, 64, 8, 64, 3, 1, 1, 1, 1, false), /* several channel blocks, odd batch */
      conv(1, 32, 9, 48, 3, 2, 1, 1, 1, true),  /* stride 2, odd size, batch 1 */
      conv(2, 32, 8, 64, 3, 2, 1, 1, 1, false), /* stride 2 leaves the last padding unread */
      conv(2, 32, 8, 64, 1, 2, 0, 1, 1, false), /* a ResNet shortcut */
      conv(4, 3, 8, 4, 1, 2, 0, 1, 1, false),   /* the same of few channels */
      conv(5, 24, 7, 40, 1, 1, 0, 1, 1, true),  /* 1x1 */
      conv(4, 3, 16, 16, 3, 1, 1, 1, 1, false), /* an image in */
      conv(2, 3, 17, 20, 7, 2, 3, 1, 1, true),  /* an ImageNet stem */
      conv(3, 12, 6, 28, 3, 1, 1, 1, 1, false), /* channels that fill no vector */
      conv(1, 28, 5, 12, 3, 1, 1, 1, 1, true),
      conv(2, 5, 6, 7, 3, 1, 0, 1, 1, true),     /* no padding, odd everything */
      conv(2, 16, 9, 32, 3, 1, 2, 2, 1, false),  /* dilation */
      conv(3, 32, 6, 64, 3, 1, 1, 1, 2, true),   /* groups */
      conv(2, 12, 6, 18, 3, 2, 1, 1, 3, false),  /* groups of 4 and 6 */
      conv(3, 32, 7, 32, 3, 1, 1, 1, 32, false), /* depthwise */
      conv(2, 28, 8, 28, 3, 2, 1, 1, 28, true),  /* depthwise, stride 2, partial vector */
      conv(2, 8, 6, 16, 3, 1, 1, 1, 8, false),   /* depthwise with a multiplier */
      {{2, 6, 7, 10, 9, 4, 10, 3, 2, 2, 1, 1, 1, 1, 2, 1, true},
       false}, /* nothing square: 3x2, stride 2x1, dilation 1x2 */
      {{2, 16, 1, 1, 16, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, false},
       false}, /* a kernel larger than the input */
      linear(8, 64, 1, 1, 10, true),
      linear(1, 512, 1, 1, 100, false),
      linear(7, 13, 1, 1, 9, true),
      linear(4, 16, 4, 4, 10, true), /* a flattened value */
      linear(3, 12, 2, 5, 7, false),
      linear(2, 1, 6, 6, 5, true),
  };
  for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) {
    check(&problems[i], MPTL_COMPUTE_F32, INTEGERS);
    check(&problems[i], MPTL_COMPUTE_F32, REALS);
    check(&problems[i], MPTL_COMPUTE_F32, OVERFLOW);
    if (!mptl_dnn_supports(MPTL_COMPUTE_BF16)) continue;
    check(&problems[i], MPTL_COMPUTE_BF16, INTEGERS);
    check(&problems[i], MPTL_COMPUTE_BF16, NARROW);
    check(&problems[i], MPTL_COMPUTE_BF16, OVERFLOW);
  }
  printf("oneDNN %s, bf16 %s: %zu operators, %d failures\n", mptl_dnn_version(),
         mptl_dnn_supports(MPTL_COMPUTE_BF16) ? "too" : "not in this CPU",
         sizeof problems / sizeof *problems, failures);
  return failures != 0;
}

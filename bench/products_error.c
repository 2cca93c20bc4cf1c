/* Errors of matrix products: the passes of convolutions of our own and oneDNN's, on the same
 * operands, against sums in binary64:
 *
 *   cmake --build build --target bench_products_error && build/bin/bench_products_error [batch
 *   [row]]
 *
 * Operands are random numbers of 8 significant bits, so that bf16 holds them exactly. Each cell: the
 * root mean square of the errors, divided by that of the results, in units of 2^-24; ours, oneDNN's,
 * and ours divided by oneDNN's. */
#include <math.h>
#include <string.h>

#include "backend/cpu/conv_bf16.h"
#include "conv_dnn.h"
#include "conv_rows.h"
#include "mptl/isa.h"
#include "mptl/machine.h"

typedef struct operands {
  mptl_conv_shape s;
  size_t n[3];  /* of x, weights, y: by mptl_conv_array */
  float *at[3]; /* results of a pass are there, too */
  double *sums; /* of the pass */
} operands;

/* A number of 8 significant bits and magnitude 2^-12 to 1. */
static float random_number(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  const float x = ldexpf((float)(128 + (*state >> 57)), -8 - (int)((*state >> 40) % 12));
  return *state >> 56 & 1 ? -x : x;
}

static void fill(float *x, size_t n, uint64_t *state) {
  for (size_t i = 0; i < n; i++) x[i] = random_number(state);
}

static size_t at4(int a, int b, int c, int d, int nb, int nc, int nd) {
  return (((size_t)a * (size_t)nb + (size_t)b) * (size_t)nc + (size_t)c) * (size_t)nd + (size_t)d;
}

/* Adds to the sums of a pass the products of an output pixel. */
static void add_pixel(const operands *o, mptl_pass pass, int n, int oy, int ox) {
  const mptl_conv_shape *s = &o->s;
  const int ic = s->ic / s->groups, oc = s->oc / s->groups;
  for (int ky = 0; ky < s->kh; ky++)
    for (int kx = 0; kx < s->kw; kx++) {
      const int y = oy * s->sh - s->ph + ky * s->dh, x = ox * s->sw - s->pw + kx * s->dw;
      if (y < 0 || y >= s->ih || x < 0 || x >= s->iw) continue;
      for (int c = 0; c < s->oc; c++)
        for (int i = 0; i < ic; i++) {
          const size_t result = at4(n, oy, ox, c, s->oh, s->ow, s->oc),
                       input = at4(n, y, x, c / oc * ic + i, s->ih, s->iw, s->ic),
                       weight = at4(c, i, ky, kx, ic, s->kh, s->kw);
          if (pass == MPTL_FORWARD)
            o->sums[result] += (double)o->at[MPTL_X][input] * (double)o->at[MPTL_W][weight];
          else if (pass == MPTL_BACKWARD_DATA)
            o->sums[input] += (double)o->at[MPTL_Y][result] * (double)o->at[MPTL_W][weight];
          else
            o->sums[weight] += (double)o->at[MPTL_X][input] * (double)o->at[MPTL_Y][result];
        }
    }
}

static void add_all(const operands *o, mptl_pass pass) {
  memset(o->sums, 0, o->n[mptl_arrays_of(pass).result] * sizeof *o->sums);
  for (int n = 0; n < o->s.n; n++)
    for (int y = 0; y < o->s.oh; y++)
      for (int x = 0; x < o->s.ow; x++) add_pixel(o, pass, n, y, x);
}

/* The relative error of a pass's results, in units of 2^-24. */
static double error_of(const operands *o, mptl_pass pass, const float *results) {
  double errors = 0, sums = 0;
  for (size_t i = 0; i < o->n[mptl_arrays_of(pass).result]; i++) {
    const double error = (double)results[i] - o->sums[i];
    errors += error * error, sums += o->sums[i] * o->sums[i];
  }
  return sqrt(errors / sums) * 0x1p24;
}

static void run_ours(const operands *o, mptl_pass pass, bool bf16, int threads, float *to) {
  mptl_format format;
  mptl_rounder exact;
  mptl_conv *conv = NULL;
  mptl_conv_bf16 *narrow = NULL;
  const unsigned parts[2] = {1, 1};
  const mptl_source x = {o->at[MPTL_X], sizeof(float), NULL},
                    dy = {o->at[MPTL_Y], sizeof(float), NULL};
  MUST(mptl_format_parse(&format, "fp32"));
  mptl_rounder_init(&exact, format, MPTL_NEAREST_EVEN, MPTL_INF);
  const mptl_sink sink = {.data = to, .size = sizeof(float), .rounder = &exact};
  if (bf16)
    MUST(mptl_conv_bf16_create(&narrow, mptl_bf16(), threads, &o->s, pass, parts));
  else
    MUST(mptl_conv_create(&conv, threads, &o->s, pass));
  void *packed = bench_ones(
           (bf16 ? mptl_conv_bf16_packed_bytes(narrow) : mptl_conv_packed_bytes(conv)) / 4),
       *scratch = bench_ones((bf16 ? mptl_conv_bf16_scratch_bytes(narrow)
                                   : mptl_conv_scratch_bytes(conv, sizeof(float), &sink)) /
                             4);
  if (pass != MPTL_BACKWARD_WEIGHTS && bf16) mptl_conv_bf16_pack(narrow, packed, o->at[MPTL_W]);
  if (pass != MPTL_BACKWARD_WEIGHTS && !bf16) mptl_conv_pack(conv, packed, o->at[MPTL_W]);
  if (pass == MPTL_FORWARD && bf16)
    mptl_conv_bf16_forward(narrow, &sink, &x, packed, NULL, scratch);
  if (pass == MPTL_FORWARD && !bf16) mptl_conv_forward(conv, &sink, &x, packed, NULL, scratch);
  if (pass == MPTL_BACKWARD_DATA && bf16)
    mptl_conv_bf16_backward_data(narrow, &sink, &dy, packed, scratch);
  if (pass == MPTL_BACKWARD_DATA && !bf16)
    mptl_conv_backward_data(conv, &sink, &dy, packed, scratch);
  if (pass == MPTL_BACKWARD_WEIGHTS && bf16)
    mptl_conv_bf16_backward_weights(narrow, to, NULL, &x, &dy, scratch);
  if (pass == MPTL_BACKWARD_WEIGHTS && !bf16)
    mptl_conv_backward_weights(conv, to, NULL, &x, &dy, scratch);
  mptl_conv_destroy(conv);
  mptl_conv_bf16_destroy(narrow);
  free(packed), free(scratch);
}

/* The upper halves of numbers. */
static uint16_t *halves(const float *x, size_t n) {
  uint16_t *half = bench_ones((n + 1) / 2);
  for (size_t i = 0; i < n; i++) half[i] = (uint16_t)(mptl_f32_bits(x[i]) >> 16);
  return half;
}

static void run_dnn(const operands *o, mptl_pass pass, bool bf16, int threads, float *to) {
  mptl_compute computes[MPTL_PASSES] = {MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  mptl_dnn *op;
  computes[pass] = bf16 ? MPTL_COMPUTE_BF16 : MPTL_COMPUTE_F32;
  MUST(mptl_dnn_conv_create(&op, threads, &o->s, computes));
  void *packed = bench_ones(mptl_dnn_packed_bytes(op, pass) / 4),
       *scratch = bench_ones(mptl_dnn_scratch_bytes(op) / 4);
  void *x = bf16 ? (void *)halves(o->at[MPTL_X], o->n[MPTL_X]) : o->at[MPTL_X],
       *y = bf16 ? (void *)halves(o->at[MPTL_Y], o->n[MPTL_Y]) : o->at[MPTL_Y];
  mptl_dnn_use_scratch(op, scratch);
  if (pass != MPTL_BACKWARD_WEIGHTS) MUST(mptl_dnn_pack(op, pass, packed, o->at[MPTL_W]));
  if (pass == MPTL_FORWARD) MUST(mptl_dnn_forward(op, to, x, packed, NULL));
  if (pass == MPTL_BACKWARD_DATA) MUST(mptl_dnn_backward_data(op, to, y, packed));
  if (pass == MPTL_BACKWARD_WEIGHTS) MUST(mptl_dnn_backward_weights(op, to, NULL, x, y));
  mptl_dnn_destroy(op);
  if (bf16) free(x), free(y);
  free(packed), free(scratch);
}

static void compare(const operands *o, mptl_pass pass, bool bf16, int threads) {
  float *to = bench_ones(o->n[mptl_arrays_of(pass).result]);
  run_ours(o, pass, bf16, threads, to);
  const double ours = error_of(o, pass, to);
  run_dnn(o, pass, bf16, threads, to);
  const double dnn = error_of(o, pass, to);
  printf(" | %5.2f %5.2f %4.2f", ours, dnn, ours / dnn);
  fflush(stdout);
  free(to);
}

int main(int argc, char **argv) {
  const int batch = argc > 1 ? atoi(argv[1]) : 8, only = argc > 2 ? atoi(argv[2]) : -1,
            threads = mptl_default_threads("");
  uint64_t state = 1;
  if (batch < 1) {
    fprintf(stderr, "usage: bench_products_error [batch [row]]\n");
    return 2;
  }
  printf("%s, batch %d\n%-26s", mptl_isa_name(), batch, "");
  for (int bf16 = 0; bf16 < (mptl_bf16() != NULL ? 2 : 1); bf16++)
    for (int pass = 0; pass < MPTL_PASSES; pass++)
      printf(" | %s %-11.11s", bf16 ? "bf16" : "f32 ", mptl_pass_name((mptl_pass)pass));
  printf("\n");
  for (int i = 0; i < BENCH_ROWS; i++) {
    if (only >= 0 && only != i) continue;
    operands o = {.s = bench_shape(&bench_rows[i], batch)};
    const mptl_conv_sizes sizes = mptl_conv_sizes_of(&o.s);
    o.s.bias = false;
    for (int k = 0; k < 3; k++) {
      o.n[k] = sizes.n[k];
      o.at[k] = bench_ones(o.n[k]);
      fill(o.at[k], o.n[k], &state);
    }
    const size_t most = o.n[0] > o.n[2] ? o.n[0] : o.n[2];
    o.sums = malloc((most > o.n[1] ? most : o.n[1]) * sizeof *o.sums);
    if (o.sums == NULL) abort();
    printf("%4d -> %-4d %2dx%-2d k%d s%d g%-3d", o.s.ic, o.s.oc, o.s.ih, o.s.iw, o.s.kh, o.s.sh,
           o.s.groups);
    for (int bf16 = 0; bf16 < (mptl_bf16() != NULL && o.s.groups == 1 ? 2 : 1); bf16++)
      for (int pass = 0; pass < MPTL_PASSES; pass++) {
        add_all(&o, (mptl_pass)pass);
        compare(&o, (mptl_pass)pass, bf16 == 1, threads);
      }
    printf("\n");
    for (int k = 0; k < 3; k++) free(o.at[k]);
    free(o.sums);
  }
  return 0;
}

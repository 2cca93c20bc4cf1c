/* Kernels of batch norm (kernels/cpu/norm.h): each result is that of the formula, bit for bit, with
 * every instruction set, any number of channels, operands in binary32 and in codes; nothing outside
 * of the results is written (run it with the address sanitizer). */
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "kernels/cpu/norm.h"
#include "mptl/isa.h"
#include "mptl/round.h"

enum { ROWS = 5, CHANNELS = 75, N = ROWS * CHANNELS };

static uint32_t random_word(uint32_t *random) {
  *random = *random * 1664525u + 1013904223u;
  return *random ^ *random >> 15;
}

static float random_float(uint32_t *random) {
  return (float)(random_word(random) >> 8) * 0x1p-23f - 1.0f;
}

/* An operand as codes, and decoded. */
typedef struct operand {
  mptl_rounder rounder;
  uint8_t *codes;
  float *values;
} operand;

/* n codes of the format, which are at most `limit` without their signs. Exactly n bytes, so that
 * the sanitizer finds a read behind them. */
static operand make_operand(const char *format, size_t n, uint32_t limit, uint32_t *random) {
  operand o;
  mptl_format f;
  MUST(mptl_format_parse(&f, format) == MPTL_OK);
  mptl_rounder_init(&o.rounder, f, MPTL_NEAREST_EVEN, MPTL_SATURATE);
  o.codes = malloc(n);
  o.values = malloc(n * sizeof(float));
  MUST(o.codes != NULL && o.values != NULL);
  for (size_t i = 0; i < n; i++) {
    const uint32_t word = random_word(random), magnitude = word % (limit + 1);
    o.codes[i] = (uint8_t)(magnitude | (word >> 16 & 1 ? o.rounder.code_sign : 0));
    o.values[i] = mptl_bits_f32(mptl_decode_code(o.codes[i], &o.rounder));
  }
  return o;
}

static void free_operand(operand *o) {
  free(o->codes);
  free(o->values);
}

static mptl_pixels pixels(const operand *o, bool in_codes) {
  return in_codes ? (mptl_pixels){o->codes, &o->rounder} : (mptl_pixels){o->values, NULL};
}

static bool same(const float *a, const float *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (mptl_f32_bits(a[i]) != mptl_f32_bits(b[i]) && (a[i] == a[i] || b[i] == b[i])) return false;
  return true;
}

/* All four kernels on `rows` pixels of c channels. */
static int check_kernels(const operand *dy, const operand *x, bool in_codes, size_t rows, size_t c,
                         uint32_t *random) {
  const mptl_norm_kernels *k = mptl_norm();
  const size_t n = rows * c;
  float v[4][c], sum[c], sum2[c], want[c], want2[c];
  float *got = malloc(n * sizeof *got), *expected = malloc(n * sizeof *expected);
  MUST(got != NULL && expected != NULL);
  for (int i = 0; i < 4; i++)
    for (size_t j = 0; j < c; j++) v[i][j] = random_float(random);
  for (size_t j = 0; j < c; j++) sum[j] = want[j] = 1.5f * (float)j, sum2[j] = want2[j] = 0.25f;

  for (size_t i = 0; i < n; i++) {
    const float d = x->values[i] - v[0][i % c];
    want[i % c] += d;
    want2[i % c] += d * d;
    expected[i] = x->values[i] * v[1][i % c] + v[2][i % c];
  }
  k->moments(sum, sum2, pixels(x, in_codes), v[0], rows, c);
  CHECK(same(sum, want, c) && same(sum2, want2, c));
  k->normalize(got, pixels(x, in_codes), v[1], v[2], rows, c);
  CHECK(same(got, expected, n));

  for (size_t i = 0; i < n; i++) {
    const size_t j = i % c;
    want[j] += dy->values[i];
    want2[j] += dy->values[i] * (x->values[i] - v[0][j]);
    expected[i] = (dy->values[i] - v[1][j] - (x->values[i] - v[0][j]) * v[2][j]) * v[3][j];
  }
  k->backward_sums(sum, sum2, pixels(dy, in_codes), pixels(x, in_codes), v[0], rows, c);
  CHECK(same(sum, want, c) && same(sum2, want2, c));
  k->normalize_backward(got, pixels(dy, in_codes), pixels(x, in_codes), v[0], v[1], v[2], v[3],
                        rows, c);
  CHECK(same(got, expected, n));
  free(got);
  free(expected);
  return 0;
}

/* Codes of dy and x up to these magnitudes. read: whether the kernels with vectors read them. */
typedef struct formats {
  const char *dy, *x;
  uint32_t dy_limit, x_limit;
  bool read;
} formats;

static const formats all[] = {
    {"FP(5,2,0)", "FP(4,3,4)", 123, 127, true},    {"FP(5,2,0)", "FP(4,3,4)", 124, 127, false},
    {"FP(5,2,-9)", "FP(3,4,0)", 123, 127, true},   {"FP(2,5,7)", "FP(4,3,-100)", 127, 127, true},
    {"fp8_e5m2", "fp8_e4m3fn", 123, 126, true},    {"fp8_e5m2", "fp8_e4m3fn", 123, 127, false},
    {"FP(4,2,0)", "FP(4,3,4)", 63, 127, false},    {"FP(6,1,0)", "FP(4,3,4)", 127, 127, false},
    {"FP(4,3,4)", "FP(4,3,120)", 127, 127, false},
};

static bool reads(const operand *o, size_t n) {
  return mptl_norm()->reads(o->codes, n, &o->rounder);
}

static int check_formats(const char *isa, const formats *f, size_t c, uint32_t *random) {
  const bool vectors = strcmp(isa, "scalar") != 0 && strcmp(isa, "neon") != 0;
  for (size_t rows = 1; rows <= ROWS; rows += 2) {
    operand dy = make_operand(f->dy, rows * c, f->dy_limit, random),
            x = make_operand(f->x, rows * c, f->x_limit, random);
    dy.codes[0] = (uint8_t)f->dy_limit;
    x.codes[rows * c - 1] = (uint8_t)f->x_limit;
    dy.values[0] = mptl_bits_f32(mptl_decode_code(dy.codes[0], &dy.rounder));
    x.values[rows * c - 1] = mptl_bits_f32(mptl_decode_code(f->x_limit, &x.rounder));
    const bool read = reads(&dy, rows * c) && reads(&x, rows * c);
    CHECK(read == (vectors && f->read));
    CHECK(check_kernels(&dy, &x, false, rows, c, random) == 0);
    CHECK(!read || check_kernels(&dy, &x, true, rows, c, random) == 0);
    free_operand(&dy);
    free_operand(&x);
  }
  return 0;
}

int main(void) {
  int failures = 0;
  uint32_t random = 1;
  const char *isa;
  for (size_t i = 0; (isa = mptl_isa_here(i)) != NULL; i++) {
    MUST(mptl_isa_select(isa) == MPTL_OK);
    for (size_t c = 1; c <= CHANNELS; c++)
      for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        if (check_formats(isa, &all[k], c, &random) != 0) {
          fprintf(stderr, "norm: %s, %s and %s, %zu channels\n", isa, all[k].dy, all[k].x, c);
          failures++;
        }
  }
  if (failures == 0) printf("norm: no failures\n");
  return failures > 0;
}

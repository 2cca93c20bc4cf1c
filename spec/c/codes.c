/* Operators on codes (kernels/cpu/codes.h): the codes are those of the operator's results on the
 * decoded values, with every instruction set; all codes of formats of 8 bits, random ones of wider
 * formats, arrays of many lengths. */
#include <string.h>

#include "check.h"
#include "kernels/cpu/codes.h"
#include "kernels/pointwise.h"
#include "mptl/isa.h"
#include "mptl/round.h"

enum { N = 1 << 16 };

static uint16_t y[N], dy[N], dx[N], in_place[N];

static uint32_t code_at(const uint16_t *codes, size_t size, size_t i) {
  return size == 1 ? ((const uint8_t *)codes)[i] : codes[i];
}

static void set_code(uint16_t *codes, size_t size, size_t i, uint32_t code) {
  if (size == 1)
    ((uint8_t *)codes)[i] = (uint8_t)code;
  else
    codes[i] = (uint16_t)code;
}

/* All pairs of codes of 8 bits; pairs of which many are at the ends of the formats' ranges. */
static void make_input(const mptl_rounder *of_y, const mptl_rounder *of_dy, size_t size) {
  uint32_t random = 1;
  for (size_t i = 0; i < N; i++) {
    random = random * 1664525u + 1013904223u;
    uint32_t near = i % 4 == 0 ? 0 : of_y->max_code - 2, spread = i % 4 < 2 ? 7 : ~0u;
    uint32_t code = size == 1 ? (uint32_t)i & 255 : near + (random >> 16 & spread);
    set_code(y, size, i, (code & (of_y->code_sign - 1)) | (random >> 8 & 1 ? of_y->code_sign : 0));
    if (size == 1) set_code(y, size, i, (uint32_t)i & (2 * of_y->code_sign - 1));
    set_code(dy, size, i,
             (size == 1 ? (uint32_t)i >> 8 : random >> 4) & (2 * of_dy->code_sign - 1));
  }
}

static float value(const mptl_rounder *r, uint32_t code) {
  return mptl_bits_f32(mptl_decode_code(code, r));
}

static bool is_nan(const mptl_rounder *r, uint32_t code) {
  return value(r, code) != value(r, code);
}

static int check_backward(const mptl_rounder *of_y, const mptl_rounder *of_dy, size_t n) {
  const size_t size = mptl_code_size(of_y->format);
  uint32_t most = mptl_codes()->relu_backward(dx, dy, of_dy, y, of_y, n), most_dy = 0, expected = 0;
  for (size_t i = 0; i < n; i++) {
    const uint32_t of = code_at(dy, size, i), got = code_at(dx, size, i),
                   a = got & (of_dy->code_sign - 1);
    const float want = mptl_relu_backward(value(of_dy, of), value(of_y, code_at(y, size, i)));
    CHECK(mptl_f32_bits(value(of_dy, got)) == mptl_f32_bits(want) && (got == of || got == 0));
    expected = a > expected ? a : expected;
    if ((of & (of_dy->code_sign - 1)) > most_dy) most_dy = of & (of_dy->code_sign - 1);
  }
  CHECK(most == expected && mptl_codes()->largest(dy, n, of_dy) == most_dy);
  return 0;
}

static int check_backward_f32(const mptl_rounder *of_y, size_t n) {
  static float from[N], to[N];
  for (size_t i = 0; i < n; i++) from[i] = mptl_bits_f32((uint32_t)i * 2654435761u);
  mptl_codes()->relu_backward_f32(to, from, y, of_y, n);
  for (size_t i = 0; i < n; i++) {
    const float want =
        mptl_relu_backward(from[i], value(of_y, code_at(y, mptl_code_size(of_y->format), i)));
    CHECK(mptl_f32_bits(to[i]) == mptl_f32_bits(want));
  }
  return 0;
}

static int check_forward(const mptl_rounder *r, size_t n) {
  const size_t size = mptl_code_size(r->format);
  memcpy(in_place, y, sizeof y);
  for (size_t i = 0; i < n; i++)
    if (is_nan(r, code_at(y, size, i))) set_code(in_place, size, i, r->code_sign);
  memcpy(dx, in_place, sizeof dx);
  uint32_t most = mptl_codes()->relu(in_place, n, r), expected = 0;
  for (size_t i = 0; i < N; i++) {
    const uint32_t got = code_at(in_place, size, i), from = code_at(dx, size, i);
    if (i >= n) {
      CHECK(got == from);
      continue;
    }
    CHECK(mptl_f32_bits(value(r, got)) == mptl_f32_bits(mptl_relu(value(r, from))));
    expected = got > expected ? got : expected;
  }
  CHECK(most == expected);
  return 0;
}

int main(void) {
  static const char *const formats[][2] = {
      {"FP(4,3,4)", "FP(5,2,0)"}, {"fp8_e4m3fn", "fp8_e5m2"},    {"fp8_e5m2", "fp8_e4m3fn"},
      {"FP(2,1,0)", "FP(3,2,0)"}, {"FP(4,3,-127)", "FP(1,0,0)"}, {"fp16", "FP(6,9,0)"},
      {"FP(5,4,0)", "bf16"}};
  static const size_t counts[] = {N, 0, 1, 31, 63, 64, 65, 127, 1000};
  const char *isa;
  int failed = 0;
  for (size_t k = 0; (isa = mptl_isa_here(k)) != NULL; k++) {
    MUST(mptl_isa_select(isa) == MPTL_OK);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
      mptl_format format[2];
      mptl_rounder r[2];
      for (int j = 0; j < 2; j++) {
        MUST(mptl_format_parse(&format[j], formats[f][j]) == MPTL_OK);
        mptl_rounder_init(&r[j], format[j], MPTL_NEAREST_EVEN, MPTL_INF);
      }
      make_input(&r[0], &r[1], mptl_code_size(format[0]));
      for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        const int wrong = check_backward(&r[0], &r[1], counts[c]) +
                          check_backward_f32(&r[0], counts[c]) + check_forward(&r[0], counts[c]);
        if (wrong) fprintf(stderr, "%s, %s and %s\n", isa, formats[f][0], formats[f][1]);
        failed += wrong;
      }
    }
  }
  if (failed == 0) printf("codes: no failures\n");
  return failed > 0;
}

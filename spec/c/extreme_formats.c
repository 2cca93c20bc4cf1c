/* Rounding, encoding and decoding in every FP(e,m,b) with bias shifts at and near their limits,
 * where values reach or exceed binary32's limits: all instruction sets must equal the scalar one
 * bit for bit. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "mptl/isa.h"
#include "mptl/round.h"

enum { N = 240, CODES = 2048 };

static float input[N];

/* Patterns of all kinds, half of them near the format's smallest and largest normal values. */
static void make_input(const mptl_rounder *r, uint32_t *random) {
  for (int i = 0; i < N; i++) {
    *random = *random * 1664525u + 1013904223u;
    uint32_t u = *random ^ *random >> 15;
    if (i % 4 == 0)
      u = (u & 0x807fffff) | ((uint32_t)(r->emin + 127 + (int)(u >> 8 & 7) - 5) & 255) << 23;
    if (i % 4 == 1) u = (u & 0x80000007) + r->max_bits - 3;
    if (i % 16 == 2)
      u = (u & 0x80ffffff) |
          (u & 0x01000000 ? 0x7f000000 : 0); /* subnormals; infinities, NaNs and what is below */
    if (i % 16 == 3) u &= MPTL_F32_SIGN;
    if (i % 16 == 6) u |= MPTL_F32_INF | (u & 0x100 ? 0 : 0x7fffff);
    input[i] = mptl_bits_f32(i % 16 == 10 ? (u & MPTL_F32_SIGN) | MPTL_F32_INF : u);
  }
}

/* What one instruction set computes from the input, and from the first and last codes. */
typedef struct result {
  float rounded[N], back[N], decoded[CODES];
  uint32_t codes[N];
  mptl_round_stats round_stats, encode_stats;
} result;

static void run(result *out, const mptl_rounder *r, size_t n) {
  static uint32_t codes[CODES];
  const size_t size = mptl_code_size(r->format);
  const mptl_key key = mptl_make_key(5, MPTL_STREAM_ROUND, 7, 9);
  const uint64_t all = 2 * (uint64_t)r->code_sign, count = all < CODES ? all : CODES;
  memset(out, 0, sizeof *out);
  mptl_round_f32(out->rounded, input, n, r, key, 3, &out->round_stats);
  mptl_encode_f32(out->codes, input, n, r, key, 3, &out->encode_stats);
  mptl_decode_f32(out->back, out->codes, n, r);
  for (uint64_t i = 0; i < count;
       i++) { /* all codes, or the lowest and highest ones of either sign */
    uint64_t code = all <= CODES ? i
                    : i % 4 == 0 ? i / 4
                    : i % 4 == 1 ? r->code_sign - 1 - i / 4
                    : i % 4 == 2 ? r->code_sign + i / 4
                                 : all - 1 - i / 4;
    if (size == 1) ((uint8_t *)codes)[i] = (uint8_t)code;
    if (size == 2) ((uint16_t *)codes)[i] = (uint16_t)code;
    if (size == 4) codes[i] = (uint32_t)code;
  }
  mptl_decode_f32(out->decoded, codes, (size_t)count, r);
}

static int differs(const char *what, const char *isa, const mptl_rounder *r, const void *want,
                   const void *got, size_t words) {
  const uint32_t *w = want, *g = got;
  for (size_t i = 0; i < words; i++) {
    if (w[i] == g[i]) continue;
    fprintf(stderr, "FP(%d,%d,%d), mode %s, %s: %s %zu is %08x, scalar says %08x\n", r->format.e,
            r->format.m, r->format.b, mptl_rounding_mode_name((size_t)r->mode), isa, what, i, g[i],
            w[i]);
    return 1;
  }
  return 0;
}

static int check_format(mptl_format format, mptl_rounding_mode mode, mptl_overflow overflow,
                        uint32_t *random) {
  static result want, got;
  mptl_rounder r;
  mptl_rounder_init(&r, format, mode, overflow);
  make_input(&r, random);
  const size_t n = *random >> 20 & 1 ? N : (*random >> 21) % N + 1;
  CHECK(mptl_isa_select("scalar") == MPTL_OK);
  run(&want, &r, n);
  const char *isa;
  for (size_t k = 1; (isa = mptl_isa_here(k)) != NULL; k++) {
    CHECK(mptl_isa_select(isa) == MPTL_OK);
    run(&got, &r, n);
    if (differs("rounded", isa, &r, want.rounded, got.rounded, N) ||
        differs("code", isa, &r, want.codes, got.codes, N) ||
        differs("decoded again", isa, &r, want.back, got.back, N) ||
        differs("decoded code", isa, &r, want.decoded, got.decoded, CODES) ||
        differs("statistics of rounding", isa, &r, &want.round_stats, &got.round_stats,
                sizeof want.round_stats / 4) ||
        differs("statistics of encoding", isa, &r, &want.encode_stats, &got.encode_stats,
                sizeof want.encode_stats / 4))
      return 1;
  }
  return 0;
}

int main(void) {
  static const int shifts[] = {-127, -126, -125, -120, -100, 0, 63, 100, 120, 125, 126, 127};
  uint32_t random = 1;
  int failed = 0;
  for (int e = 1; e <= 8; e++)
    for (int m = 0; m <= 23; m++)
      for (size_t b = 0; b < sizeof shifts / sizeof *shifts; b++)
        for (int mode = MPTL_NEAREST_EVEN; mode <= MPTL_STOCHASTIC; mode++)
          for (int overflow = MPTL_SATURATE; overflow <= MPTL_INF; overflow++) {
            mptl_format format = {(int8_t)e, (int8_t)m, (int16_t)shifts[b], MPTL_TOP_FULL, false};
            failed +=
                check_format(format, (mptl_rounding_mode)mode, (mptl_overflow)overflow, &random);
          }
  if (failed > 0) fprintf(stderr, "%d formats and modes differ\n", failed);
  return failed > 0;
}

/* Rounding of all 2^32 binary32 inputs: compares every instruction set with the scalar definition,
 * and the scalar definition with binary64 arithmetic that does not use bit patterns. Statistics,
 * codes and decoding are compared, too.
 *
 *   round_exhaustive [FORMAT[:MODE[:OVERFLOW]]...]      e.g.  round_exhaustive 'FP(4,3,4)'
 * fp16:up:inf
 *
 * MODE `all`, the default, runs all six modes; without arguments it runs a list of selected
 * formats. It prints differences with bit patterns and exits with 1. A format and mode takes one to
 * two minutes on two cores.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "mptl/isa.h"
#include "mptl/round.h"

#define BLOCK ((size_t)1 << 24)
#define CHUNK ((size_t)1 << 18)

static float *input, *rounded, *decoded;
static uint32_t *expected, *expected_code, *expected_back;
static mptl_round_stats expected_stats[BLOCK / CHUNK];
static void *codes;

/* The largest power of two that is not above x > 0. */
static double power_of_two(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits &= 0x7ffull << 52;
  memcpy(&x, &bits, sizeof bits);
  return x;
}

/* The definition in binary64, which is exact for scaling by powers of two and integers up to
 * 2^53. */
static uint32_t by_binary64(uint32_t u, const mptl_rounder *r, const mptl_format_info *info,
                            uint32_t word, mptl_key key, uint64_t index, mptl_round_stats *stats) {
  double x = (double)mptl_bits_f32(u), size = fabs(x), units, kept = 0;
  bool negative = signbit(x);
  stats->elements++;
  if (isnan(x)) {
    stats->nan_in++;
    return u | 0x400000;
  }
  double beyond = r->overflow == MPTL_INF ? (double)INFINITY : info->max;
  if (isinf(x)) {
    stats->inf_in++;
    return mptl_f32_bits((float)copysign(beyond, x));
  }
  if (size > (double)stats->max_abs) stats->max_abs = (float)size;
  double spacing = power_of_two(size < info->min_normal ? info->min_normal : size) * info->epsilon;
  units = size / spacing;
  switch (r->mode) {
    case MPTL_NEAREST_EVEN:
      kept = nearbyint(units);
      break;
    case MPTL_NEAREST_AWAY:
      kept = floor(units + 0.5);
      break; /* exact: units has at most 24 bits */
    case MPTL_TOWARD_ZERO:
      kept = floor(units);
      break;
    case MPTL_UP:
      kept = negative ? floor(units) : ceil(units);
      break;
    case MPTL_DOWN:
      kept = negative ? ceil(units) : floor(units);
      break;
    case MPTL_STOCHASTIC: {
      double first = (units - floor(units)) * 0x1p32, second = (first - floor(first)) * 0x1p32;
      bool up = word < floor(first) ||
                (word == floor(first) && mptl_random_u32(key, index, 1) < floor(second));
      kept = floor(units) + up;
      break;
    }
  }
  double y = kept * spacing;
  if (size > 0 && y == 0) stats->underflow++;
  if (y > info->max) {
    bool never = r->mode == MPTL_TOWARD_ZERO || (r->mode == MPTL_UP && negative) ||
                 (r->mode == MPTL_DOWN && !negative);
    if (!never) stats->overflow++;
    y = never ? info->max : beyond;
  }
  return mptl_f32_bits((float)copysign(y, x));
}

static bool same_stats(const mptl_round_stats *a, const mptl_round_stats *b) {
  return a->elements == b->elements && a->underflow == b->underflow && a->overflow == b->overflow &&
         a->inf_in == b->inf_in && a->nan_in == b->nan_in &&
         mptl_f32_bits(a->max_abs) == mptl_f32_bits(b->max_abs);
}

static void print_stats(const char *who, const mptl_round_stats *s) {
  printf("  %s: %llu elements, %llu underflow, %llu overflow, %llu inf, %llu nan, max %a\n", who,
         (unsigned long long)s->elements, (unsigned long long)s->underflow,
         (unsigned long long)s->overflow, (unsigned long long)s->inf_in,
         (unsigned long long)s->nan_in, (double)s->max_abs);
}

static uint32_t code_at(size_t size, size_t i) {
  return size == 1   ? ((uint8_t *)codes)[i]
         : size == 2 ? ((uint16_t *)codes)[i]
                     : ((uint32_t *)codes)[i];
}

/* Computes the expected results of a chunk in binary64 and compares the scalar definition with
 * them; returns the number of differences. */
static int check_scalar(size_t at, const mptl_rounder *r, const mptl_format_info *info,
                        mptl_key key, uint64_t index0) {
  int wrong = 0;
  bool random = r->mode == MPTL_STOCHASTIC;
  mptl_round_stats want = {0}, got = {0};
  for (size_t i = at; i < at + CHUNK; i++) {
    uint32_t u = mptl_f32_bits(input[i]), event,
             word = random ? mptl_random_u32(key, index0 + i, 0) : 0;
    expected[i] = by_binary64(u, r, info, word, key, index0 + i, &want);
    uint32_t y = mptl_round_bits_word(u, r, word, key, index0 + i, &event);
    mptl_count(&got, u, event);
    if (y != expected[i] && wrong++ < 3)
      printf("  %08X: scalar %08X, binary64 %08X\n", u, y, expected[i]);
    expected_code[i] = mptl_encode_bits(y, r);
    bool has_code =
        (y & 0x7fffffff) < MPTL_F32_INF || ((y & 0x7fffffff) == MPTL_F32_INF && r->has_infinity);
    expected_back[i] = mptl_decode_code(expected_code[i], r);
    if (has_code && expected_back[i] != y && wrong++ < 3)
      printf("  %08X: rounds to %08X, code %X, which decodes to %08X\n", u, y, expected_code[i],
             expected_back[i]);
  }
  expected_stats[at / CHUNK] = want;
  if (!same_stats(&want, &got) && wrong++ < 3)
    print_stats("binary64", &want), print_stats("scalar", &got);
  return wrong;
}

/* Compares the array functions of the chosen instruction set with the expected results, on a chunk
 * that is cut into pieces of unaligned sizes; returns the number of differences. */
static int check_vector(const char *isa, size_t at, const mptl_rounder *r, mptl_key key,
                        uint64_t index0) {
  int wrong = 0;
  size_t size = mptl_code_size(r->format);
  const size_t cuts[] = {0, 1, 38, 38 + 4096, CHUNK - 77, CHUNK};
  mptl_round_stats want = expected_stats[at / CHUNK], got = {0}, encoded = {0};
  for (size_t c = 0; c + 1 < sizeof cuts / sizeof cuts[0]; c++) {
    size_t from = at + cuts[c], n = cuts[c + 1] - cuts[c];
    mptl_round_f32(rounded + from, input + from, n, r, key, index0 + from, &got);
    mptl_encode_f32((char *)codes + from * size, input + from, n, r, key, index0 + from, &encoded);
    mptl_decode_f32(decoded + from, (char *)codes + from * size, n, r);
  }
  for (size_t i = at; i < at + CHUNK; i++) {
    uint32_t u = mptl_f32_bits(input[i]), y = mptl_f32_bits(rounded[i]), code = code_at(size, i),
             d = mptl_f32_bits(decoded[i]);
    if (y != expected[i] && wrong++ < 3)
      printf("  %08X: %s %08X, expected %08X\n", u, isa, y, expected[i]);
    if (code != expected_code[i] && wrong++ < 3)
      printf("  %08X: %s code %X, expected %X\n", u, isa, code, expected_code[i]);
    if (d != expected_back[i] && wrong++ < 3)
      printf("  code %X: %s decodes to %08X, expected %08X\n", code, isa, d, expected_back[i]);
  }
  if ((!same_stats(&want, &got) || !same_stats(&want, &encoded)) && wrong++ < 3)
    print_stats("scalar", &want), print_stats(isa, &got), print_stats("encode", &encoded);
  return wrong;
}

static int run(mptl_format format, mptl_rounding_mode mode, mptl_overflow overflow) {
  char name[32];
  mptl_rounder r;
  mptl_format_info info = mptl_format_describe(format);
  mptl_rounder_init(&r, format, mode, overflow);
  mptl_format_print(format, name, sizeof name);
  fprintf(stderr, "%s %s %s", name, mptl_rounding_mode_name(mode),
          overflow == MPTL_INF ? "inf" : "saturate");
  double start = mptl_now();
  int wrong = 0;
  mptl_key key = mptl_make_key(20230717, MPTL_STREAM_ROUND, 5, 7);
  for (uint64_t base = 0; base < (uint64_t)1 << 32 && wrong == 0; base += BLOCK) {
    if (base % (BLOCK * 16) == 0) fprintf(stderr, ".");
#pragma omp parallel for reduction(+ : wrong) schedule(dynamic)
    for (size_t at = 0; at < BLOCK; at += CHUNK) {
      for (size_t i = at; i < at + CHUNK; i++) input[i] = mptl_bits_f32((uint32_t)(base + i));
      wrong += check_scalar(at, &r, &info, key, base);
    }
    const char *isa;
    for (size_t k = 0; (isa = mptl_isa_here(k)) != NULL; k++) {
      if (mptl_isa_select(isa) != MPTL_OK) return 1;
      if (k == 0 && base >> 24 & 15)
        continue; /* check_scalar ran the same code: a sixteenth is enough */
#pragma omp parallel for reduction(+ : wrong) schedule(dynamic)
      for (size_t at = 0; at < BLOCK; at += CHUNK) wrong += check_vector(isa, at, &r, key, base);
    }
  }
  fprintf(stderr, " %s, %.0f s\n", wrong ? "DIFFERENT" : "equal", mptl_now() - start);
  return wrong != 0;
}

/* FORMAT[:MODE[:OVERFLOW]] */
static int run_argument(char *text) {
  char *format_text = strtok(text, ":"), *mode_text = strtok(NULL, ":"),
       *overflow_text = strtok(NULL, ":");
  mptl_format format;
  mptl_rounding_mode only = MPTL_NEAREST_EVEN;
  if (mode_text && strcmp(mode_text, "all") == 0) mode_text = NULL;
  if (format_text == NULL || mptl_format_parse(&format, format_text) != MPTL_OK ||
      (mode_text && mptl_rounding_mode_parse(&only, mode_text) != MPTL_OK)) {
    printf("%s\n", mptl_error());
    return 1;
  }
  mptl_overflow overflow =
      overflow_text && strcmp(overflow_text, "inf") == 0 ? MPTL_INF : MPTL_SATURATE;
  int wrong = 0;
  for (int mode = 0; mptl_rounding_mode_name((size_t)mode) != NULL; mode++)
    if (mode_text == NULL || mode == (int)only)
      wrong |= run(format, (mptl_rounding_mode)mode, overflow);
  return wrong;
}

int main(int argc, char **argv) {
  static char list[][32] = {"FP(4,3,4)",          "FP(5,2,0)", "FP(6,9,0):all:inf", "fp16",
                            "fp8_e4m3fn:all:inf", "bf16",      "fp32:all:inf",      "FP(8,7,4)",
                            "FP(1,0,-127)",       "FP(3,0,1)", "FP(7,23,62)",       "FP(5,10,115)"};
  size_t bytes = BLOCK * sizeof(float);
  input = malloc(bytes), rounded = malloc(bytes), decoded = malloc(bytes), expected = malloc(bytes);
  expected_code = malloc(bytes), expected_back = malloc(bytes), codes = malloc(bytes);
  if (!input || !rounded || !decoded || !expected || !expected_code || !expected_back || !codes)
    return fputs("no memory\n", stderr), 1;
  int wrong = 0;
  for (int i = 1; i < argc; i++) wrong |= run_argument(argv[i]);
  for (size_t i = 0; argc == 1 && i < sizeof list / sizeof list[0]; i++)
    wrong |= run_argument(list[i]);
  return wrong;
}

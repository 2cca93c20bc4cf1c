/* Operands of kernels in specs: values in any storage, with the same numbers as floats; and
 * results, with the expected numbers. */
#ifndef MPTL_SPEC_CUDA_OPERANDS_H
#define MPTL_SPEC_CUDA_OPERANDS_H

#include "support.h"

static uint64_t state = 77;          /* of the random numbers */
static bool counts_exponents = true; /* of results; plain kernels do not count them */

/* memcpy that allows 0 bytes with NULL. */
static inline void copy_bytes(void *to, const void *from, size_t bytes) {
  if (bytes > 0) memcpy(to, from, bytes);
}

/* A value: codes or binary32, and the same numbers as floats. */
struct value {
  mptl_rounder rounder;
  size_t size;
  std::vector<uint8_t> bytes;
  std::vector<float> x;
  size_t start; /* in elements: where the value begins in `bytes` */
  mptl_source source() const { return {bytes.data() + start * size, size, &rounder}; }
};

/* Makes a value of numbers, which are rounded to a format. */
static inline value value_of(const std::vector<float> &x, const char *format, size_t start) {
  value v = {make_rounder(format, MPTL_NEAREST_EVEN, MPTL_INF), 0, {}, x, start};
  size_t n = x.size();
  v.size = mptl_code_size(v.rounder.format);
  v.bytes.resize((n + start) * v.size);
  void *at = v.bytes.data() + start * v.size;
  if (v.size < 4) {
    mptl_encode_f32(at, x.data(), n, &v.rounder, mptl_key{}, 0, NULL);
    mptl_decode_f32(v.x.data(), at, n, &v.rounder);
  } else {
    mptl_round_f32(v.x.data(), x.data(), n, &v.rounder, mptl_key{}, 0, NULL);
    copy_bytes(at, v.x.data(), n * 4);
  }
  return v;
}

static inline value random_value(size_t n, const char *format, size_t start, float scale) {
  std::vector<float> x(n);
  for (float &v : x) v = random_float(&state, scale);
  return value_of(x, format, start);
}

/* Memory for results, and the expected results. */
struct result {
  mptl_rounder rounder;
  mptl_key key;
  uint64_t index0;
  size_t size, n, start;
  bool accumulate;
  std::vector<uint8_t> bytes;
  std::vector<float> before, want;
  mptl_round_stats stats, want_stats;
  mptl_exponents exponents, want_exponents;
};

static inline result make_result(size_t n, const char *format, int mode, bool accumulate,
                                 size_t start) {
  result r = {};
  r.rounder = make_rounder(format, (mptl_rounding_mode)mode, MPTL_INF);
  r.key = mptl_make_key(11, MPTL_STREAM_ROUND, 3, 9);
  r.size = accumulate ? 4 : mptl_code_size(r.rounder.format);
  r.n = n, r.start = start, r.index0 = start << 40, r.accumulate = accumulate;
  r.bytes.assign((n + start + 8) * r.size, 0x55);
  r.before.resize(n);
  for (float &x : r.before) x = random_float(&state, 2);
  if (accumulate) copy_bytes(r.bytes.data() + start * 4, r.before.data(), n * 4);
  return r;
}

static inline mptl_sink sink_of(result *r, bool stored) {
  mptl_sink s = {};
  s.data = stored ? r->bytes.data() + r->start * r->size : NULL;
  s.size = r->size, s.rounder = &r->rounder, s.key = r->key, s.index0 = r->index0;
  s.accumulate = r->accumulate, s.wanted = true, s.stats = &r->stats,
  s.exponents = counts_exponents ? &r->exponents : NULL;
  return s;
}

/* Rounds the expected results by the definition, and returns the numbers that the next operator
 * reads. */
static inline std::vector<float> expect(result *r, const std::vector<float> &unrounded) {
  r->want = unrounded;
  for (size_t i = 0; i < unrounded.size(); i++) {
    uint32_t u = mptl_f32_bits(unrounded[i]), event;
    mptl_count_exponent(&r->want_exponents, u);
    if (r->rounder.is_identity) {
      r->want_stats.elements++;
      continue;
    }
    r->want[i] = mptl_bits_f32(mptl_round_bits(u, &r->rounder, r->key, r->index0 + i, &event));
    mptl_count(&r->want_stats, u, event);
  }
  return r->want;
}

/* x after it was stored and read again. */
static inline float stored_as(const result *r, float x) {
  if (r->size == 4) return x;
  return mptl_bits_f32(
      mptl_decode_code(mptl_encode_bits(mptl_f32_bits(x), &r->rounder), &r->rounder));
}

/* The stored numbers. */
static inline std::vector<float> read_result(const result *r) {
  std::vector<float> got(r->n);
  const uint8_t *at = r->bytes.data() + r->start * r->size;
  if (r->size < 4)
    mptl_decode_f32(got.data(), at, r->n, &r->rounder);
  else
    copy_bytes(got.data(), at, r->n * 4);
  return got;
}

/* Checks statistics, exponents and stored results, and that the bytes around them are unchanged. */
static inline void check_result(const char *what, const result *r, bool stored) {
  check_stats(what, &r->stats, &r->want_stats);
  CHECK(!counts_exponents || memcmp(&r->exponents, &r->want_exponents, sizeof r->exponents) == 0,
        "%s: exponents differ", what);
  if (!stored) return;
  std::vector<float> got = read_result(r);
  for (size_t i = 0; i < r->n; i++) {
    float want = stored_as(r, r->want[i]);
    if (r->accumulate) want = r->before[i] + want;
    CHECK(same_value(got[i], want), "%s: element %zu of %zu is %a, expected %a", what, i, r->n,
          (double)got[i], (double)want);
  }
  for (size_t i = 0; i < r->start * r->size; i++)
    CHECK(r->bytes[i] == 0x55, "%s: wrote before its result", what);
  for (size_t i = (r->start + r->n) * r->size; i < r->bytes.size(); i++)
    CHECK(r->bytes[i] == 0x55, "%s: wrote behind", what);
}

#endif

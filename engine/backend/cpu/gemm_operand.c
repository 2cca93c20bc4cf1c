/* Converts the operands of matrix products: see gemm.h. */
#include <string.h>

#include "backend/cpu/gemm.h"
#include "kernels/cpu/bf16.h"

enum { CHUNK = 16384 }; /* elements that a thread converts at once */

/* With fewer parameters for each product, a pass moves numbers more than it multiplies them, and in
 * bf16 they also have to be split and ordered in pairs (docs/performance.md, "Matrix products in
 * bf16"). */
enum { LEAST_PARAMETERS = 256 };

/* The most products in bf16 for one. They pay if they are twice as fast as one in binary32. */
static int most_products(mptl_compute_setting setting, int channel_groups) {
  const bool by_dnn = setting == MPTL_COMPUTE_ONEDNN;
  const mptl_bf16_kernels *kernels = mptl_bf16();
  if (by_dnn ? !mptl_dnn_supports(MPTL_COMPUTE_BF16) : kernels == NULL || channel_groups > 1)
    return 0;
  if (setting == MPTL_COMPUTE_NARROW) return 4;
  return by_dnn ? (channel_groups == 1 && mptl_dnn_has_amx() ? 2 : 1) : (int)kernels->gain / 2;
}

mptl_gemm_way mptl_gemm_choose(mptl_compute_setting setting, const mptl_format *a,
                               const mptl_format *b, int channel_groups, size_t parameters) {
  if (setting == MPTL_COMPUTE_BINARY32 || a == NULL || b == NULL) return MPTL_GEMM_F32;
  const int products = mptl_bf16_products(*a, *b);
  if (products == 0 || products > most_products(setting, channel_groups)) return MPTL_GEMM_F32;
  if (setting == MPTL_COMPUTE_AUTO && parameters < (size_t)(LEAST_PARAMETERS * products))
    return MPTL_GEMM_F32;
  return products == 1 ? MPTL_GEMM_BF16 : products == 2 ? MPTL_GEMM_2BF16 : MPTL_GEMM_4BF16;
}

mptl_repeat mptl_gemm_repeat(mptl_gemm_way way, bool second, mptl_format format) {
  size_t terms = way != MPTL_GEMM_F32 && format.m > 7 ? 2 : 1,
         others = mptl_gemm_repeats(way) / terms;
  return second ? (mptl_repeat){terms, 1, others} : (mptl_repeat){terms, others, 1};
}

/* Whether a pass cannot multiply a value in its stored form. */
static bool converts(const mptl_source *s, mptl_gemm_way way) {
  return way != MPTL_GEMM_F32 || s->size < sizeof(float);
}

size_t mptl_gemm_operand_bytes(const mptl_source *s, mptl_gemm_way way, size_t n) {
  if (!converts(s, way)) return 0;
  return way == MPTL_GEMM_F32 ? n * sizeof(float) : n * mptl_gemm_repeats(way) * sizeof(uint16_t);
}

/* Part 0 of x: its upper bits, as bf16 has them; part 1: the rest. */
static float part_of(float x, size_t part) {
  float high = mptl_bits_f32(mptl_f32_bits(x) & 0xffff0000u);
  return part == 0 ? high : x - high;
}

/* Writes the parts of elements [at, at + n), n at most MPTL_TILE, repeated, to out, where element 0
 * is the first one of a chunk. The elements may be some of a chunk or of several. */
static void repeat_tile(const mptl_source *s, mptl_repeat r, size_t chunk, size_t offset, size_t at,
                        size_t n, uint16_t *out) {
  float buffer[MPTL_TILE];
  uint16_t parts[2][MPTL_TILE];
  const float *x = mptl_read(s, offset + at, n, buffer);
  const size_t repeats = r.terms * r.inner * r.outer;
  for (size_t part = 0; part < r.terms; part++)
    for (size_t i = 0; i < n; i++)
      parts[part][i] = (uint16_t)(mptl_f32_bits(part_of(x[i], part)) >> 16);
  for (size_t i = 0, count; i < n; i += count) {
    const size_t from = (at + i) % chunk;
    uint16_t *to = out + (at + i - from) * repeats + from;
    count = n - i < chunk - from ? n - i : chunk - from;
    for (size_t k = 0; k < repeats; k++)
      memcpy(to + k * chunk, parts[k / r.inner % r.terms] + i, count * sizeof *to);
  }
}

const void *mptl_gemm_operand(int threads, const mptl_source *s, mptl_gemm_way way, mptl_repeat r,
                              size_t chunk, size_t offset, size_t n, void *area) {
  if (!converts(s, way)) return (const float *)s->data + offset;
  size_t repeats = mptl_gemm_repeats(way);
  if (repeats > 1) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size_t i = 0; i < n; i += MPTL_TILE)
      repeat_tile(s, r, chunk, offset, i, n - i < MPTL_TILE ? n - i : MPTL_TILE, area);
    return area;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (size_t i = 0; i < n; i += CHUNK) {
    size_t count = n - i < CHUNK ? n - i : CHUNK;
    if (way == MPTL_GEMM_BF16)
      mptl_read_bf16(s, offset + i, count, (uint16_t *)area + i);
    else
      mptl_read(s, offset + i, count, (float *)area + i);
  }
  return area;
}

size_t mptl_gemm_weights_bytes(mptl_gemm_way way, size_t n) {
  return mptl_gemm_repeats(way) == 1 ? 0 : n * mptl_gemm_repeats(way) * sizeof(float);
}

const float *mptl_gemm_weights(int threads, const float *weights, mptl_gemm_way way, mptl_repeat r,
                               size_t chunk, size_t n, void *area) {
  size_t repeats = mptl_gemm_repeats(way);
  if (repeats == 1) return weights;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (size_t c = 0; c < n / chunk; c++) {
    float *out = (float *)area + c * chunk * repeats;
    for (size_t k = 0; k < repeats; k++)
      for (size_t i = 0; i < chunk; i++)
        out[k * chunk + i] = r.terms == 1 ? weights[c * chunk + i]
                                          : part_of(weights[c * chunk + i], k / r.inner % r.terms);
  }
  return area;
}

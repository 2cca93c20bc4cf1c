/* Rounding, encoding and decoding of arrays. */
#include "kernels/cpu/table.h"
#include "mptl/round.h"

void MPTL_CPU(round_f32)(float *dst, const float *src, size_t n, const mptl_rounder *r, mptl_key key, uint64_t index0,
                         mptl_round_stats *stats) {
  for (size_t i = 0; i < n; i++) {
    uint32_t u = mptl_f32_bits(src[i]), event;
    dst[i] = mptl_bits_f32(mptl_round_bits(u, r, key, index0 + i, &event));
    mptl_count(stats, u, event);
  }
}

void MPTL_CPU(encode_f32)(void *codes, const float *src, size_t n, const mptl_rounder *r, mptl_key key, uint64_t index0,
                          mptl_round_stats *stats) {
  size_t size = mptl_code_size(r->format);
  for (size_t i = 0; i < n; i++) {
    uint32_t u = mptl_f32_bits(src[i]), event;
    uint32_t code = mptl_encode_bits(mptl_round_bits(u, r, key, index0 + i, &event), r);
    if (size == 1) ((uint8_t *)codes)[i] = (uint8_t)code;
    if (size == 2) ((uint16_t *)codes)[i] = (uint16_t)code;
    if (size == 4) ((uint32_t *)codes)[i] = code;
    mptl_count(stats, u, event);
  }
}

void MPTL_CPU(decode_f32)(float *dst, const void *codes, size_t n, const mptl_rounder *r) {
  size_t size = mptl_code_size(r->format);
  for (size_t i = 0; i < n; i++) {
    uint32_t code = size == 1 ? ((const uint8_t *)codes)[i] : size == 2 ? ((const uint16_t *)codes)[i] : ((const uint32_t *)codes)[i];
    dst[i] = mptl_bits_f32(mptl_decode_code(code, r));
  }
}

float MPTL_CPU(max_abs_f32)(const float *x, size_t n) {
  uint32_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t a = mptl_f32_bits(x[i]) & ~MPTL_F32_SIGN;
    max = a < MPTL_F32_INF && a > max ? a : max;
  }
  return mptl_bits_f32(max);
}

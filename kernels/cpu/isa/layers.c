/* Kernels of layers.h, written so that the compiler vectorises each loop without changing the order
 * of any sum: reductions run over rows, vectors over channels. Compiled once per instruction
 * set. */
#include "kernels/cpu/table.h"

#include <stdint.h>
#include <string.h>

static void add(float *restrict y, const float *restrict a, const float *restrict b, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void mul(float *restrict y, const float *restrict a, const float *restrict b, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

static void accumulate(float *restrict y, const float *restrict x, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static void to_bf16(uint16_t *restrict y, const float *restrict x, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = (uint16_t)(mptl_f32_bits(x[i]) >> 16);
}

static void axpy(float *restrict y, const float *restrict x, float factor, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] += x[i] * factor;
}

static void interleave(float *restrict y, const float *restrict a, const float *restrict b,
                       size_t n) {
  for (size_t i = 0; i < n; i++) {
    y[2 * i] = a[i];
    y[2 * i + 1] = b[i];
  }
}

static void deinterleave(float *restrict a, float *restrict b, const float *restrict x, size_t n) {
  for (size_t i = 0; i < n; i++) {
    a[i] = x[2 * i];
    b[i] = x[2 * i + 1];
  }
}

static void larger(float *restrict best, int32_t *restrict index, const float *restrict x,
                   size_t step, int32_t at, size_t rows, size_t c) {
  for (; rows > 0; rows--, best += c, index += c, x += step)
    for (size_t i = 0; i < c; i++) {
      int take = (x[i] > best[i]) | (x[i] != x[i]);
      best[i] = take ? x[i] : best[i];
      index[i] = take ? at : index[i];
    }
}

static void add_where(float *restrict y, size_t step, const float *restrict x,
                      const int32_t *restrict index, int32_t at, size_t rows, size_t c) {
  for (; rows > 0; rows--, y += step, x += c, index += c)
    for (size_t i = 0; i < c; i++) y[i] += index[i] == at ? x[i] : 0.0f;
}

static uint32_t largest(const float *x, size_t n) {
  int32_t most = 0; /* every instruction set can compare signed vectors */
  for (size_t i = 0; i < n; i++) {
    int32_t magnitude = (int32_t)(mptl_f32_bits(x[i]) & ~MPTL_F32_SIGN);
    most = magnitude > most ? magnitude : most;
  }
  return (uint32_t)most;
}

static bool all_finite(const float *x, size_t n) {
  uint32_t bad = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t u;
    memcpy(&u, &x[i], sizeof u);
    bad |= (u & 0x7fffffffu) >= 0x7f800000u;
  }
  return bad == 0;
}

const mptl_layer_kernels MPTL_CPU(layers) = {
    .add = add,
    .mul = mul,
    .accumulate = accumulate,
    .to_bf16 = to_bf16,
    .axpy = axpy,
    .interleave = interleave,
    .deinterleave = deinterleave,
    .larger = larger,
    .add_where = add_where,
    .largest = largest,
    .all_finite = all_finite,
};

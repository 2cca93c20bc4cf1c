/* Values as single elements, or as vectors anywhere, for each thread and turn: for kernels that do
 * not read and write adjacent vectors, or that compute much for each element. values.h reads,
 * writes and counts. */
#ifndef MPTL_KERNELS_CUDA_ELEMENTS_H
#define MPTL_KERNELS_CUDA_ELEMENTS_H

#include "kernels/cuda/values.h"

/* A thread's elements are first, first + stride, ... */
MPTL_DEVICE size_t mptl_first_element(void) {
  return (size_t)blockIdx.x * MPTL_THREADS + threadIdx.x;
}
MPTL_DEVICE size_t mptl_element_stride(void) { return (size_t)gridDim.x * MPTL_THREADS; }

MPTL_DEVICE void mptl_count_exponent_here(mptl_exponents *e, float x) {
  uint32_t a = __float_as_uint(x) & ~MPTL_F32_SIGN;
  uint64_t *at = a == 0              ? &e->zeros
                 : a > MPTL_F32_INF  ? &e->nan
                 : a == MPTL_F32_INF ? &e->inf
                                     : &e->counts[mptl_exponent_of(a) - MPTL_EXPONENT_FIRST];
  mptl_add_u64(at, 1);
  if (a < MPTL_F32_INF) atomicMax((uint32_t *)&e->max_abs, a);
}

/* Rounds x as element `index` of the tensor, and counts. */
MPTL_DEVICE float mptl_round_element(float x, const mptl_sink_arg &s, uint64_t index,
                                     mptl_counts *counts) {
  const mptl_grid &g = s.grid;
  uint32_t u = __float_as_uint(x), a = u & ~MPTL_F32_SIGN;
  if (s.exponents != NULL) mptl_count_exponent_here(s.exponents, x);
  if (g.way == MPTL_ROUND_NOT) return x;
  if ((g.way == MPTL_ROUND_EVEN || g.way == MPTL_ROUND_CARRY) && a <= g.max_bits)
    return __uint_as_float(mptl_round_even(a, g, counts) | (u & MPTL_F32_SIGN));
  uint32_t word = g.mode == MPTL_STOCHASTIC ? mptl_random_u32(s.key, s.index0 + index, 0) : 0;
  return __uint_as_float(mptl_round_one(u, g, word, s.key, s.index0 + index, counts));
}

/* Rounds, counts and stores x as element `place` of the array. index: of the element in the tensor,
 * for random bits; mostly the same. */
MPTL_DEVICE void mptl_put(const mptl_sink_arg &s, size_t place, size_t index, float x,
                          mptl_counts *counts) {
  mptl_write_one(s, place, mptl_round_element(x, s, index, counts));
}

/* The same for the first n numbers of x, as elements [place, place + n). */
MPTL_DEVICE void mptl_put_wide(const mptl_sink_arg &s, size_t place, uint64_t index, unsigned n,
                               float *x, mptl_counts *counts) {
  if (s.exponents != NULL)
    for (unsigned k = 0; k < n; k++) mptl_count_exponent_here(s.exponents, x[k]);
  mptl_round_anywhere(x, n, s, s.index0 + index, counts);
  mptl_write_wide(s, place, n, x);
}

#endif

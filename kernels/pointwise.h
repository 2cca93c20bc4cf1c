/* Pointwise operators of one input and without parameters, for C and CUDA.
 *
 * Such an operator is a row of the list below, two functions of one element, and its name in
 * kernels/operators.h. The tables of engine and backends, the CPU's loops and the GPU's steps are
 * made from the list.
 *
 *   float mptl_NAME(float x)                          returns the output y
 *   float mptl_NAME_backward(float dy, float read)    returns the gradient of x; read is the rounded
 *                                                     y or the rounded x, as the row says
 *
 * Results are binary32; rounding to a format comes later. A function that is not exact in binary32
 * computes in binary64 and rounds once. The compiler makes vectors of the CPU's loops
 * (kernels/cpu/isa/pointwise.c): write "?:" instead of branches, and call nothing of the C library.
 */
#ifndef MPTL_KERNELS_POINTWISE_H
#define MPTL_KERNELS_POINTWISE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/random.h" /* MPTL_HD */

/* The traits of an operator. Each has one of the first two. */
enum {
  MPTL_READS_IN = 1,         /* backward reads the rounded input x */
  MPTL_READS_OUT = 2,        /* backward reads the rounded output y */
  MPTL_SELECTS = 4,          /* y is x or 0 */
  MPTL_BACKWARD_SELECTS = 8, /* the input's gradient is dy or 0 */
  MPTL_CHEAP = 16,           /* a few operations of binary32: CUDA's plain kernels have it, too */
};

/* Name, constant, traits. */
#define MPTL_UNARY_OPERATORS(ROW)                                                     \
  ROW(relu, RELU, MPTL_READS_OUT | MPTL_SELECTS | MPTL_BACKWARD_SELECTS | MPTL_CHEAP) \
  ROW(relu6, RELU6, MPTL_READS_OUT | MPTL_BACKWARD_SELECTS | MPTL_CHEAP)              \
  ROW(sigmoid, SIGMOID, MPTL_READS_OUT)

/* exp(x) for |x| <= 110, off by less than 2^-31 of it: 2^k exp(r) with |r| <= log(2) / 2, and its
 * series up to r^8 / 8!. In the CUDA kernels it is CUDA's exp. */
static inline MPTL_HD double mptl_exponential(double x) {
#ifndef MPTL_ISA
  return exp(x);
#else
  const double shift = 0x1.8p52; /* a sum with it is a whole number, in the lowest bits */
  double shifted = x * 0x1.71547652b82fep+0 + shift, k = shifted - shift;
  double r = (x - k * 0x1.62e42fefa0000p-1) - k * 0x1.cf79abc9e3b3ap-40;
  double p = 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  uint64_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
#endif
}

/* ---- relu: max(x, 0); NaN stays ---- */

static inline MPTL_HD float mptl_relu(float x) { return x <= 0.0f ? 0.0f : x; }

/* The rounded output is the mask: where a small positive value was rounded to zero, no gradient
 * passes. Where y is NaN, the gradient passes. */
static inline MPTL_HD float mptl_relu_backward(float dy, float y) { return y <= 0.0f ? 0.0f : dy; }

/* ---- relu6: min(max(x, 0), 6); NaN stays ---- */

static inline MPTL_HD float mptl_relu6(float x) {
  float low = x <= 0.0f ? 0.0f : x;
  return low >= 6.0f ? 6.0f : low;
}

/* As relu's. Where a value was rounded to 6, no gradient passes either. */
static inline MPTL_HD float mptl_relu6_backward(float dy, float y) {
  float low = y <= 0.0f ? 0.0f : dy;
  return y >= 6.0f ? 0.0f : low;
}

/* ---- sigmoid: 1 / (1 + exp(-x)), to 0.51 units of its last place; NaN stays ---- */

static inline MPTL_HD float mptl_sigmoid(float x) {
  float low = x <= -110.0f ? -110.0f : x; /* beyond it is 0 or 1 */
  float within = low >= 110.0f ? 110.0f : low;
  return (float)(1.0 / (1.0 + mptl_exponential(-(double)within)));
}

static inline MPTL_HD float mptl_sigmoid_backward(float dy, float y) { return dy * (y * (1.0f - y)); }

#endif

/* Pointwise operators with one input and without parameters, for C and CUDA.
 *
 * Such an operator is a row of the list below, two functions of one element, and a row in
 * kernels/operators.h. The tables of engine and backends, the loops of the CPU and the instructions
 * of GPU stages are made from the list.
 *
 *   float mptl_NAME(float x)                        returns the output y
 *   float mptl_NAME_backward(float dy, float read)  returns the gradient of x; read is the rounded
 * y or the rounded x, as the row says
 *
 * Results are binary32 and not yet rounded to a format. A function that is not exact in binary32
 * computes in binary64 and rounds once. The compiler vectorises the loops of the CPU
 * (kernels/cpu/isa/pointwise.c): write "?:" instead of branches, and do not call the C library.
 */
#ifndef MPTL_KERNELS_POINTWISE_H
#define MPTL_KERNELS_POINTWISE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/random.h" /* MPTL_HD */

/* The traits of an operator. Each operator has one of the first two. */
enum {
  MPTL_READS_IN = 1,         /* backward reads the rounded input x */
  MPTL_READS_OUT = 2,        /* backward reads the rounded output y */
  MPTL_SELECTS = 4,          /* y is x or 0 */
  MPTL_BACKWARD_SELECTS = 8, /* the input's gradient is dy or 0 */
  MPTL_CHEAP = 16,           /* a few binary32 operations: CUDA's plain kernels include it */
  MPTL_READS_EITHER =
      32, /* with MPTL_READS_OUT: backward gives the same for x, if y is not rounded */
};

/* Name, constant, traits. */
#define MPTL_UNARY_OPERATORS(ROW)                                                             \
  ROW(relu, RELU,                                                                             \
      MPTL_READS_OUT | MPTL_READS_EITHER | MPTL_SELECTS | MPTL_BACKWARD_SELECTS | MPTL_CHEAP) \
  ROW(relu6, RELU6, MPTL_READS_OUT | MPTL_READS_EITHER | MPTL_BACKWARD_SELECTS | MPTL_CHEAP)  \
  ROW(sigmoid, SIGMOID, MPTL_READS_OUT)                                                       \
  ROW(gelu, GELU, MPTL_READS_IN)                                                              \
  ROW(gelu_tanh, GELU_TANH, MPTL_READS_IN)

/* exp(x) for |x| <= 110, with a relative error below 2^-31: 2^k exp(r), |r| <= log(2) / 2, by the
 * series up to r^8 / 8!. CUDA kernels use CUDA's exp. */
static inline MPTL_HD double mptl_exponential(double x) {
#ifndef MPTL_ISA
  return exp(x);
#else
  const double shift = 0x1.8p52; /* adding it puts the nearest integer into the lowest bits */
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

/* The rounded output is the mask: if a small positive value was rounded to zero, the gradient is 0.
 * If y is NaN, it is dy. */
static inline MPTL_HD float mptl_relu_backward(float dy, float y) { return y <= 0.0f ? 0.0f : dy; }

/* ---- relu6: min(max(x, 0), 6); NaN stays ---- */

static inline MPTL_HD float mptl_relu6(float x) {
  float low = x <= 0.0f ? 0.0f : x;
  return low >= 6.0f ? 6.0f : low;
}

/* As relu's. If a value was rounded to 6, the gradient is 0, too. */
static inline MPTL_HD float mptl_relu6_backward(float dy, float y) {
  float low = y <= 0.0f ? 0.0f : dy;
  return y >= 6.0f ? 0.0f : low;
}

/* ---- sigmoid: 1 / (1 + exp(-x)), error at most 0.51 units in the last place; NaN stays ---- */

static inline MPTL_HD float mptl_sigmoid(float x) {
  float low = x <= -110.0f ? -110.0f : x; /* beyond 110 the result is 0 or 1 */
  float within = low >= 110.0f ? 110.0f : low;
  return (float)(1.0 / (1.0 + mptl_exponential(-(double)within)));
}

static inline MPTL_HD float mptl_sigmoid_backward(float dy, float y) {
  float slope = y * (1.0f - y);
  return dy * slope;
}

/* ---- gelu: x times the probability that a normally distributed number is less than x ----
 *
 * The error is at most 0.51 units in the last place. For infinities the results are PyTorch's in
 * binary64: infinity for infinity, NaN for -infinity, and NaN for the gradients of both. */

/* The density of the normal distribution, exp(-x^2 / 2) / sqrt(2 pi). For |x| >= 14.8 it returns 0,
 * since x times the density is 0 in binary32 there. */
static inline MPTL_HD double mptl_normal_density(double x) {
  double size = x < 0.0 ? -x : x, within = size >= 14.8 ? 14.8 : size;
  double density = 0.3989422804014327 * mptl_exponential(-0.5 * within * within);
  return size >= 14.8 ? 0.0 : density;
}

/* The probability of numbers less than x, with a relative error below 2^-30. For x < 0 it is the
 * density times Mills' ratio of |x|. This ratio is t times a polynomial in t = 1 / (1 + |x| / 5)
 * with a relative error of at most 2^-33.6 for |x| <= 14.8 (by the Remez algorithm). */
static inline MPTL_HD double mptl_normal_less(double x) {
  double size = x < 0.0 ? -x : x, within = size >= 14.8 ? 14.8 : size;
  double t = 1.0 / (1.0 + 0.2 * within);
  double p = 0x1.d0cc18f68283ep-5;
  p = p * t - 0x1.56420b2a231ffp-2;
  p = p * t + 0x1.7f4b122f24774p-1;
  p = p * t - 0x1.c38f8335dba27p-1;
  p = p * t + 0x1.a6dfda8563a80p-1;
  p = p * t - 0x1.5edcc91bd45acp-2;
  p = p * t + 0x1.34b0a5cfc3c22p-2;
  p = p * t + 0x1.a50539d12d544p-4;
  p = p * t + 0x1.7c70425c0867ap-3;
  p = p * t + 0x1.86b1712124c39p-3;
  p = p * t + 0x1.99c8d70f955a7p-3;
  p = p * t + 0x1.9998193d15161p-3;
  double tail = mptl_normal_density(x) * (p * t);
  return x > 0.0 ? 1.0 - tail : tail;
}

static inline MPTL_HD float mptl_gelu(float x) {
  double wide = (double)x;
  return (float)(wide * mptl_normal_less(wide));
}

static inline MPTL_HD float mptl_gelu_backward(float dy, float x) {
  double wide = (double)x;
  return (float)((double)dy * (mptl_normal_less(wide) + wide * mptl_normal_density(wide)));
}

/* ---- gelu_tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) ----
 *
 * Computed as x / (1 + exp(-u)), u = 2 sqrt(2 / pi) (x + 0.044715 x^3), without cancellation.
 * Accuracy and special values are as for gelu. */

/* 1 / (1 + exp(-u)). For u <= -110 it returns 0, since x times the factor is 0 in binary32
 * there. */
static inline MPTL_HD double mptl_gelu_tanh_factor(double x) {
  double u = 1.5957691216057308 * (x + 0.044715 * (x * x * x));
  double low = u <= -110.0 ? -110.0 : u, within = low >= 110.0 ? 110.0 : low;
  double factor = 1.0 / (1.0 + mptl_exponential(-within));
  return u <= -110.0 ? 0.0 : factor;
}

static inline MPTL_HD float mptl_gelu_tanh(float x) {
  double wide = (double)x;
  return (float)(wide * mptl_gelu_tanh_factor(wide));
}

static inline MPTL_HD float mptl_gelu_tanh_backward(float dy, float x) {
  double wide = (double)x, factor = mptl_gelu_tanh_factor(wide);
  double slope = 1.5957691216057308 * (1.0 + 3.0 * 0.044715 * (wide * wide)); /* of u */
  return (float)((double)dy * (factor + wide * (factor * (1.0 - factor)) * slope));
}

#endif

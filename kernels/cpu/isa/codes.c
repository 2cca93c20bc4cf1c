/* The kernels of codes.h, in loops that the compiler vectorises. */
#include "kernels/cpu/ahead.h"
#include "kernels/cpu/table.h"
#include "mptl/round.h"

/* A mask: all bits where a ReLU passes the gradient, if its output has the code y. y <= 0 is 0, or
 * from -0 to `least`, the negative code of the largest magnitude without NaN. */
#define MASK(type, condition) ((type)((condition) ? ~0u : 0u))
#define KEEP(type)                                                                 \
  static inline type keep_##type(type y, type minus_zero, type least) {            \
    const type positive = MASK(type, y < minus_zero), nan = MASK(type, y > least), \
               not_zero = MASK(type, y != 0);                                      \
    return (type)((positive & not_zero) | nan);                                    \
  }

KEEP(uint8_t)
KEEP(uint16_t)
KEEP(uint32_t)

/* The functions for codes that are stored in `type`. Without masks for conditions the compiler does
 * not find vectors. */
#define CODE_LOOPS(type)                                                                      \
  static uint32_t largest_##type(const type *codes, size_t n, type magnitude) {               \
    type most = 0;                                                                            \
    for (size_t i = 0; i < n; i++) {                                                          \
      const type a = codes[i] & magnitude;                                                    \
      most = a > most ? a : most;                                                             \
    }                                                                                         \
    return most;                                                                              \
  }                                                                                           \
                                                                                              \
  static uint32_t relu_##type(type *codes, size_t n, type magnitude) {                        \
    type most = 0;                                                                            \
    for (size_t i = 0; i < n; i++) {                                                          \
      const type code = codes[i] & MASK(type, codes[i] <= magnitude);                         \
      most = code > most ? code : most;                                                       \
      codes[i] = code;                                                                        \
    }                                                                                         \
    return most;                                                                              \
  }                                                                                           \
                                                                                              \
  static uint32_t relu_backward_##type(type *restrict dx, const type *restrict dy,            \
                                       const type *restrict y, size_t n, type magnitude,      \
                                       type minus_zero, type least) {                         \
    enum { LANES = MPTL_LINE / sizeof(type) };                                                \
    type most[LANES] = {0};                                                                   \
    size_t i = 0;                                                                             \
    for (; i + LANES <= n; i += LANES) {                                                      \
      mptl_fetch_ahead(dy + i, sizeof(type));                                                 \
      mptl_fetch_ahead(y + i, sizeof(type));                                                  \
      for (size_t k = 0; k < LANES; k++) {                                                    \
        const type code = dy[i + k] & keep_##type(y[i + k], minus_zero, least),               \
                   a = code & magnitude;                                                      \
        most[k] = a > most[k] ? a : most[k];                                                  \
        dx[i + k] = code;                                                                     \
      }                                                                                       \
    }                                                                                         \
    for (; i < n; i++) {                                                                      \
      const type code = dy[i] & keep_##type(y[i], minus_zero, least), a = code & magnitude;   \
      most[0] = a > most[0] ? a : most[0];                                                    \
      dx[i] = code;                                                                           \
    }                                                                                         \
    return largest_##type(most, LANES, magnitude);                                            \
  }                                                                                           \
                                                                                              \
  static void relu_backward_f32_##type(float *restrict dx, const float *restrict dy,          \
                                       const type *restrict y, size_t n, uint32_t minus_zero, \
                                       uint32_t least) {                                      \
    for (size_t i = 0; i < n; i++) {                                                          \
      const uint32_t code = y[i], u = mptl_f32_bits(dy[i]);                                   \
      dx[i] = mptl_bits_f32(u & keep_uint32_t(code, minus_zero, least));                      \
    }                                                                                         \
  }

CODE_LOOPS(uint8_t)
CODE_LOOPS(uint16_t)

static uint32_t largest(const void *codes, size_t n, const mptl_rounder *r) {
  const uint32_t magnitude = r->code_sign - 1;
  return mptl_code_size(r->format) == 1 ? largest_uint8_t(codes, n, (uint8_t)magnitude)
                                        : largest_uint16_t(codes, n, (uint16_t)magnitude);
}

static uint32_t relu(void *codes, size_t n, const mptl_rounder *r) {
  const uint32_t magnitude = r->code_sign - 1;
  return mptl_code_size(r->format) == 1 ? relu_uint8_t(codes, n, (uint8_t)magnitude)
                                        : relu_uint16_t(codes, n, (uint16_t)magnitude);
}

static uint32_t least_code(const mptl_rounder *r) {
  return r->code_sign + (r->has_infinity ? r->inf_code : r->max_code);
}

static uint32_t relu_backward(void *dx, const void *dy, const mptl_rounder *of_dy, const void *y,
                              const mptl_rounder *of_y, size_t n) {
  const uint32_t magnitude = of_dy->code_sign - 1, minus_zero = of_y->code_sign,
                 least = least_code(of_y);
  return mptl_code_size(of_dy->format) == 1
             ? relu_backward_uint8_t(dx, dy, y, n, (uint8_t)magnitude, (uint8_t)minus_zero,
                                     (uint8_t)least)
             : relu_backward_uint16_t(dx, dy, y, n, (uint16_t)magnitude, (uint16_t)minus_zero,
                                      (uint16_t)least);
}

static void relu_backward_f32(float *dx, const float *dy, const void *y, const mptl_rounder *of_y,
                              size_t n) {
  const uint32_t minus_zero = of_y->code_sign, least = least_code(of_y);
  if (mptl_code_size(of_y->format) == 1)
    relu_backward_f32_uint8_t(dx, dy, y, n, minus_zero, least);
  else
    relu_backward_f32_uint16_t(dx, dy, y, n, minus_zero, least);
}

const mptl_code_kernels MPTL_CPU(codes) = {.largest = largest,
                                           .relu = relu,
                                           .relu_backward = relu_backward,
                                           .relu_backward_f32 = relu_backward_f32};

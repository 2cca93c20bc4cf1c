/* The operators of kernels/pointwise.h in loops, which the compiler vectorises. */
#include "kernels/cpu/table.h"
#include "kernels/pointwise.h"

#define UNARY_LOOPS(name, NAME, traits)                                              \
  static void forward_##name(float *restrict y, const float *restrict x, size_t n) { \
    for (size_t i = 0; i < n; i++) y[i] = mptl_##name(x[i]);                         \
  }                                                                                  \
  static void backward_##name(float *restrict dx, const float *restrict dy,          \
                              const float *restrict read, size_t n) {                \
    for (size_t i = 0; i < n; i++) dx[i] = mptl_##name##_backward(dy[i], read[i]);   \
  }
MPTL_UNARY_OPERATORS(UNARY_LOOPS)

#define TABLE_ROW(name, NAME, traits) [MPTL_OP_##NAME] = {forward_##name, backward_##name},
const mptl_unary_kernels MPTL_CPU(unary)[MPTL_OP_IDS] = {MPTL_UNARY_OPERATORS(TABLE_ROW)};

/* Updates of arrays: a loop for each optimizer of kernels/optimizers.h. */
#include "kernels/cpu/table.h"

/* The state of an element is in registers. The number of states is a constant, so the compiler
 * drops the arrays that an optimizer does not have. */
#define UPDATE_LOOP(name, NAME, states)                                                      \
  static void update_##name(float *restrict p, float *const *state, const float *restrict g, \
                            size_t n, const mptl_factors *factors) {                         \
    float *restrict a = state[0], *restrict b = (states) > 1 ? state[1] : NULL;              \
    const mptl_factors f = *factors;                                                         \
    for (size_t i = 0; i < n; i++) {                                                         \
      float x = p[i], s[MPTL_MAX_STATES] = {a[i], (states) > 1 ? b[i] : 0.0f};               \
      mptl_update_##name(&x, s, g[i], &f);                                                   \
      p[i] = x;                                                                              \
      a[i] = s[0];                                                                           \
      if ((states) > 1) b[i] = s[1];                                                         \
    }                                                                                        \
  }
MPTL_OPTIMIZERS(UPDATE_LOOP)

#define TABLE_ROW(name, NAME, states) [MPTL_OPTIMIZER_##NAME] = update_##name,
mptl_update_kernel *const MPTL_CPU(updates)[MPTL_OPTIMIZER_IDS] = {MPTL_OPTIMIZERS(TABLE_ROW)};

/* Picks the kernels of the best instruction set that the CPU has. */
#include "kernels/cpu/layers.h"

extern const mptl_layer_kernels mptl_layer_kernels_scalar, mptl_layer_kernels_avx2, mptl_layer_kernels_avx512;

const mptl_layer_kernels *mptl_layers(void) {
  if (__builtin_cpu_supports("avx512bw")) return &mptl_layer_kernels_avx512;
  return __builtin_cpu_supports("avx2") ? &mptl_layer_kernels_avx2 : &mptl_layer_kernels_scalar;
}

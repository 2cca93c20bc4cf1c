/* Adds channels to convolutions. */
#include "backend/cuda/channels.h"

enum { TOGETHER = 8 }; /* channels in 16 bytes of bf16 */

static int filled(int n) { return (n + TOGETHER - 1) / TOGETHER * TOGETHER; }

/* In bf16, cuDNN's kernels for compute capability 9.0 read 16 bytes at a time and need multiples of
 * 8 channels. For other numbers cuDNN has slower kernels, and for odd numbers no backward passes.
 * On an H100, its engine 2 gave wrong gradients of weights with 4 and 12 channels, and with 6 input
 * channels the gradients of weights of ResNet-18's first convolution (batch 128) took 341 us. */
mptl_conv_shape mptl_cuda_filled_up(mptl_conv_shape shape, mptl_cuda_type first,
                                    mptl_cuda_type second) {
  if (shape.groups != 1 || first != MPTL_CUDA_BF16 || second != MPTL_CUDA_BF16) return shape;
  shape.ic = filled(shape.ic);
  shape.oc = filled(shape.oc);
  return shape;
}

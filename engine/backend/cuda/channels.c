/* Channels that convolutions are multiplied with. */
#include "backend/cuda/channels.h"

enum { TOGETHER = 8 }; /* channels: 16 bytes of bf16 */

static int filled(int n) { return (n + TOGETHER - 1) / TOGETHER * TOGETHER; }

/* In bf16 cuDNN's kernels for compute capability 9.0 read 16 bytes at a time, so they take multiples of 8 channels. For others it has
 * slower ones, for odd numbers nothing backward; and engine 2, which it has for the gradients of weights of 4 and 12 channels, gave wrong
 * sums on an H100. There, of ResNet-18's first convolution (batch 128), 6 channels took 341 us for the gradients of weights. */
mptl_conv_shape mptl_cuda_filled_up(mptl_conv_shape shape, mptl_cuda_type first, mptl_cuda_type second) {
  if (shape.groups != 1 || first != MPTL_CUDA_BF16 || second != MPTL_CUDA_BF16) return shape;
  shape.ic = filled(shape.ic);
  shape.oc = filled(shape.oc);
  return shape;
}

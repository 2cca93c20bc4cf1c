/* Channels that convolutions are multiplied with. */
#include "backend/cuda/channels.h"

/* The smallest number of the form 4 j + remainder that is not below n. */
static int next(int n, int remainder) { return n + ((remainder - n) % 4 + 4) % 4; }

/* Only odd numbers of channels are filled up, in bf16. cuDNN 9.19 has nothing backward for them, and forward, for inputs, only kernels that
 * do not read ahead; for even numbers it has both. Multiples of 4 are read in accesses of 8 bytes at least. But for the gradients of
 * weights cuDNN lists, where both numbers are multiples of 4, only engine 2, in which one block sums a part of the weights over all
 * pixels of the batch; else engine 1, which sums 16 parts of the pixels side by side. */
mptl_conv_shape mptl_cuda_filled_up(mptl_conv_shape shape, mptl_pass pass, mptl_cuda_type first, mptl_cuda_type second) {
  int remainder = pass == MPTL_BACKWARD_WEIGHTS ? 2 : 0;
  if (shape.groups != 1 || first != MPTL_CUDA_BF16 || second != MPTL_CUDA_BF16) return shape;
  if (shape.ic % 2 != 0) shape.ic = next(shape.ic, remainder);
  if (shape.oc % 2 != 0 && pass != MPTL_FORWARD) shape.oc = next(shape.oc, remainder);
  return shape;
}

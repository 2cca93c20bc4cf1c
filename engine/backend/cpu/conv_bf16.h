/* Passes of convolutions and linear layers in bf16, by the tiles of kernels/cpu/bf16.h. What
 * conv.h says of layouts and threads holds here, too, with these differences:
 *
 * - Operands must be exact in bf16, or the exact sum of two parts (kernels/cpu/bf16.h).
 * - Padding is multiplied as zeros.
 * - There is one group of channels.
 * - Sums are in the order of the kernels' instruction, over the terms of conv.h. Backward by
 *   weights adds the sums of units in order. A unit is the fewest images, or of an image the fewest
 *   rows, that have 1024 output pixels.
 *
 * Results are the same bits for any number of threads, but not for any instruction set.
 */
#ifndef MPTL_BACKEND_CPU_CONV_BF16_H
#define MPTL_BACKEND_CPU_CONV_BF16_H

#include "backend/cpu/conv.h"
#include "kernels/cpu/bf16.h"

typedef struct mptl_conv_bf16 mptl_conv_bf16;

/* One pass of a convolution, for a number of threads. parts: 1 or 2, of the pass's two operands
 * (mptl_arrays_of). */
MPTL_API mptl_status mptl_conv_bf16_create(mptl_conv_bf16 **conv, const mptl_bf16_kernels *kernels,
                                           int threads, const mptl_conv_shape *shape,
                                           mptl_pass pass, const unsigned parts[2]);
MPTL_API void mptl_conv_bf16_destroy(mptl_conv_bf16 *conv); /* NULL is allowed */

/* Bytes of the weights as the pass reads them (0 in backward by weights), and of scratch memory.
 * Both areas are aligned to 64 bytes. */
MPTL_API size_t mptl_conv_bf16_packed_bytes(const mptl_conv_bf16 *conv);
MPTL_API size_t mptl_conv_bf16_scratch_bytes(const mptl_conv_bf16 *conv);

/* Brings weights into the type and order in which the pass reads them. */
MPTL_API void mptl_conv_bf16_pack(const mptl_conv_bf16 *conv, uint16_t *packed,
                                  const float *weights);

/* bias [oc] or NULL. */
MPTL_API void mptl_conv_bf16_forward(const mptl_conv_bf16 *conv, const mptl_sink *y,
                                     const mptl_source *x, const uint16_t *packed,
                                     const float *bias, void *scratch);
MPTL_API void mptl_conv_bf16_backward_data(const mptl_conv_bf16 *conv, const mptl_sink *dx,
                                           const mptl_source *dy, const uint16_t *packed,
                                           void *scratch);

/* dbias NULL: not computed. */
MPTL_API void mptl_conv_bf16_backward_weights(const mptl_conv_bf16 *conv, float *dweights,
                                              float *dbias, const mptl_source *x,
                                              const mptl_source *dy, void *scratch);

#endif

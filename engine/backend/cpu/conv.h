/* Passes of convolutions and linear layers in binary32, by the tiles of kernels/cpu/products.h.
 *
 * Values are NHWC, weights [oc][ic / groups][kh][kw]. A linear layer is the convolution whose
 * window is its whole input. Operands are decoded into scratch memory, and results are rounded and stored while they are in a cache. Results are the same bits for any
 * number of threads and any instruction set:
 *
 *   forward           y: one chain over the window's rows, its columns, the input channels; then
 *                     + bias
 *   backward data     dx: one chain over the window's rows and columns, the last ones first, and
 *                     the output channels
 *   backward weights  dweights, dbias: for each block of output rows one chain over rows, images
 *                     and columns; the blocks' sums are added in order. A block is the fewest
 *                     images, or of an image the fewest rows, that have 256 output pixels; the
 *                     last block of a batch or of an image may have fewer
 *
 * In a chain every product is added by a fused multiply-add (dbias has plain additions). Padding is
 * left out; only in backward by weights, but not of depthwise convolutions, are columns of padding
 * multiplied as zeros, so that an infinite gradient that meets them gives NaN. No chain of finite
 * operands gives NaN.
 */
#ifndef MPTL_BACKEND_CPU_CONV_H
#define MPTL_BACKEND_CPU_CONV_H

#include "backend/cpu/cpu.h"
#include "backend/shapes.h"

typedef struct mptl_conv mptl_conv;

/* One pass of a convolution, for a number of threads. */
MPTL_API mptl_status mptl_conv_create(mptl_conv **conv, int threads, const mptl_conv_shape *shape,
                                      mptl_pass pass);
MPTL_API void mptl_conv_destroy(mptl_conv *conv); /* NULL is allowed */

/* Bytes of the weights as the pass reads them (0 in backward by weights), and of scratch memory:
 * operand_size is that of an element of the operand that is read in windows (x or dy; in backward by
 * weights the smaller one of both), result a sink of which only size and accumulate matter (NULL in
 * backward by weights). Both areas are aligned to 64 bytes. */
MPTL_API size_t mptl_conv_packed_bytes(const mptl_conv *conv);
MPTL_API size_t mptl_conv_scratch_bytes(const mptl_conv *conv, size_t operand_size,
                                        const mptl_sink *result);

/* Brings weights into the order in which the pass reads them. */
MPTL_API void mptl_conv_pack(const mptl_conv *conv, float *packed, const float *weights);

/* bias [oc] or NULL. */
MPTL_API void mptl_conv_forward(const mptl_conv *conv, const mptl_sink *y, const mptl_source *x,
                                const float *packed, const float *bias, void *scratch);
MPTL_API void mptl_conv_backward_data(const mptl_conv *conv, const mptl_sink *dx,
                                      const mptl_source *dy, const float *packed, void *scratch);

/* dbias [oc] or NULL; NULL if the shape has no bias. */
MPTL_API void mptl_conv_backward_weights(const mptl_conv *conv, float *dweights, float *dbias,
                                         const mptl_source *x, const mptl_source *dy,
                                         void *scratch);

#endif

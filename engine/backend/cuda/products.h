/* Matrix products of the CUDA backend: one object for each pass of a convolution or linear layer.
 * products.c computes them with cuDNN and cuBLASLt; host/products.c with loops, for tests.
 *
 * Activations are NHWC, weights and their gradients [out][kh][kw][in / groups]. Results are
 * binary32, summed in binary32. backend/shapes.h defines the operands of each pass.
 */
#ifndef MPTL_BACKEND_CUDA_PRODUCTS_H
#define MPTL_BACKEND_CUDA_PRODUCTS_H

#include <stddef.h>

#include "backend/cuda/announced.h"
#include "backend/cuda/runtime.h"

typedef struct mptl_cuda_product mptl_cuda_product;

/* The device's first product opens the libraries. MPTL_EINVAL: the operand types cannot be combined
 * (types.h). MPTL_EUNSUPPORTED: the library has no code for this product. */
mptl_status mptl_cuda_product_conv(mptl_cuda_product **product, mptl_cuda_device *device,
                                   const mptl_conv_shape *shape, mptl_pass pass,
                                   mptl_cuda_pair types);
mptl_status mptl_cuda_product_linear(mptl_cuda_product **product, mptl_cuda_device *device,
                                     const mptl_linear_shape *shape, mptl_pass pass,
                                     mptl_cuda_pair types);
void mptl_cuda_product_destroy(mptl_cuda_product *product); /* NULL is allowed */

/* Optional hint: the calls of mptl_cuda_product_conv that will follow, so that slow preparation can
 * run in parallel. */
void mptl_cuda_products_announce(mptl_cuda_device *device, const mptl_cuda_announced *list,
                                 size_t n);

/* Device memory that a run needs, 256-byte aligned. */
size_t mptl_cuda_product_workspace_bytes(const mptl_cuda_product *product);

/* The library's engine, "cuDNN engine 28". */
const char *mptl_cuda_product_engine(const mptl_cuda_product *product);

/* Addresses are the device's, 16-byte aligned. */
mptl_status mptl_cuda_product_run(mptl_cuda_product *product, float *result, const void *first,
                                  const void *second, void *workspace);

/* Releases what the device's products share, device->products, after the last product is
 * destroyed. */
void mptl_cuda_products_close(mptl_cuda_device *device);

/* "CUDA 13.0, cuDNN 9.13.0, cuBLASLt 13.1.0" */
const char *mptl_cuda_products_libraries(void);

#endif

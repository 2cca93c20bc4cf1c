/* A pass of a layer on a GPU, by whichever library computes it. */
#ifndef MPTL_SPEC_CUDA_PRODUCT_H
#define MPTL_SPEC_CUDA_PRODUCT_H

#include "backend/cuda/inspect.h"

/* A layer. A linear layer also has the shape of the convolution with the same products. */
typedef struct layer {
  mptl_conv_shape s;
  mptl_linear_shape linear; /* n == 0: it is a convolution */
} layer;

static inline layer layer_of_linear(const mptl_linear_shape *linear) {
  return (layer){mptl_linear_as_conv(linear), *linear};
}

typedef struct product {
  mptl_cuda_conv *conv; /* or: */
  mptl_cuda_linear *linear;
  size_t workspace_bytes;
  const char *name, *engine, *wrong;
} product;

static inline mptl_status product_create(product *p, mptl_cuda_dnn *dnn, mptl_cuda_blas *blas,
                                         const layer *l, mptl_pass pass, mptl_cuda_type first,
                                         mptl_cuda_type second, size_t workspace_limit) {
  *p = (product){.conv = NULL};
  if (l->linear.n > 0) {
    MPTL_TRY(mptl_cuda_linear_create(&p->linear, blas, &l->linear, pass, first, second,
                                     workspace_limit));
    p->workspace_bytes = mptl_cuda_linear_workspace_bytes(p->linear);
    p->name = mptl_cuda_linear_describe(p->linear);
    p->engine = mptl_cuda_linear_engine(p->linear);
    p->wrong = mptl_cuda_linear_wrong(p->linear);
    return MPTL_OK;
  }
  MPTL_TRY(mptl_cuda_conv_create(&p->conv, dnn, &l->s, pass, first, second, workspace_limit));
  p->workspace_bytes = mptl_cuda_conv_workspace_bytes(p->conv);
  p->name = mptl_cuda_conv_describe(p->conv);
  p->engine = mptl_cuda_conv_engine(p->conv);
  p->wrong = mptl_cuda_conv_wrong(p->conv);
  return MPTL_OK;
}

static inline void product_destroy(product *p) {
  mptl_cuda_conv_destroy(p->conv);
  mptl_cuda_linear_destroy(p->linear);
}

static inline mptl_status product_run(const product *p, float *result, const void *first,
                                      const void *second, void *workspace) {
  return p->conv != NULL ? mptl_cuda_conv_run(p->conv, result, first, second, workspace)
                         : mptl_cuda_linear_run(p->linear, result, first, second, workspace);
}

#endif

/* Products through cuDNN and cuBLASLt, which are loaded with the first one that needs them. */
#include "backend/cuda/products.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/blas.h"
#include "backend/cuda/dnn.h"
#include "backend/cuda/runtime.h"

enum { MOST_THREADS = 4 }; /* that make plans: more would only wait for each other (dnn_ahead.c) */

struct mptl_cuda_product {
  char engine[40];      /* a convolution's */
  mptl_cuda_conv *conv; /* one of them */
  mptl_cuda_linear *linear;
};

/* For the open device, for the life of the process. */
static mptl_cuda_dnn *dnn;
static mptl_cuda_blas *blas;

static mptl_status allocate(mptl_cuda_product **product) {
  *product = calloc(1, sizeof **product);
  return *product ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory");
}

static mptl_status finish(mptl_cuda_product **product, mptl_status status) {
  if (status == MPTL_OK) return MPTL_OK;
  mptl_cuda_product_destroy(*product);
  *product = NULL;
  return status;
}

static mptl_status open_dnn(void) {
  return dnn != NULL ? MPTL_OK : mptl_cuda_dnn_create(&dnn, mptl_cuda_runtime_device(), mptl_cuda_runtime_stream());
}

void mptl_cuda_products_expect(const mptl_cuda_wanted *list, size_t n) {
  cpu_set_t cores;
  int threads = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  if (open_dnn() != MPTL_OK) return;
  mptl_cuda_conv_make_ahead(dnn, list, n, MPTL_CUDA_USUAL_WORKSPACE, threads < MOST_THREADS ? threads : MOST_THREADS);
}

mptl_status mptl_cuda_product_conv(mptl_cuda_product **product, const mptl_conv_shape *shape, mptl_pass pass, mptl_cuda_pair t) {
  MPTL_TRY(open_dnn());
  MPTL_TRY(allocate(product));
  MPTL_TRY(
      finish(product, mptl_cuda_conv_create(&(*product)->conv, dnn, shape, pass, t.first, t.second, MPTL_CUDA_USUAL_WORKSPACE)));
  snprintf((*product)->engine, sizeof(*product)->engine, "cuDNN %s", mptl_cuda_conv_engine((*product)->conv));
  return MPTL_OK;
}

mptl_status mptl_cuda_product_linear(mptl_cuda_product **product, const mptl_linear_shape *shape, mptl_pass pass,
                                     mptl_cuda_pair t) {
  if (blas == NULL) MPTL_TRY(mptl_cuda_blas_create(&blas, mptl_cuda_runtime_device(), mptl_cuda_runtime_stream()));
  MPTL_TRY(allocate(product));
  return finish(product,
                mptl_cuda_linear_create(&(*product)->linear, blas, shape, pass, t.first, t.second, MPTL_CUDA_USUAL_WORKSPACE));
}

void mptl_cuda_product_destroy(mptl_cuda_product *p) {
  if (p == NULL) return;
  mptl_cuda_conv_destroy(p->conv);
  mptl_cuda_linear_destroy(p->linear);
  free(p);
}

size_t mptl_cuda_product_workspace_bytes(const mptl_cuda_product *p) {
  return p->conv ? mptl_cuda_conv_workspace_bytes(p->conv) : mptl_cuda_linear_workspace_bytes(p->linear);
}

const char *mptl_cuda_product_engine(const mptl_cuda_product *p) {
  return p->conv ? p->engine : mptl_cuda_linear_engine(p->linear);
}

mptl_status mptl_cuda_product_run(mptl_cuda_product *p, float *result, const void *first, const void *second, void *workspace) {
  return p->conv ? mptl_cuda_conv_run(p->conv, result, first, second, workspace)
                 : mptl_cuda_linear_run(p->linear, result, first, second, workspace);
}

const char *mptl_cuda_products_libraries(void) {
  static char text[96];
  snprintf(text, sizeof text, "CUDA %d.%d, cuDNN %s, cuBLASLt %s", CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100,
           mptl_cuda_dnn_version(), mptl_cuda_blas_version());
  return text;
}

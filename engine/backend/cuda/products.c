/* Matrix products by cuDNN and cuBLASLt. The libraries work on the thread's current device, and a
 * thread may use several devices in turn, so every function first makes its device the current one
 * (mptl_cuda_enter). */
#include "backend/cuda/products.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/blas.h"
#include "backend/cuda/dnn_ahead.h"
#include "backend/cuda/dnn_conv.h"

enum { MOST_THREADS = 4 }; /* that make plans; more would only wait for each other (dnn_ahead.c) */

struct mptl_cuda_product {
  mptl_cuda_device *device;
  char engine[40];      /* of a convolution */
  mptl_cuda_conv *conv; /* one of conv and linear is NULL */
  mptl_cuda_linear *linear;
};

/* The libraries on a device. NULL before the first use. */
struct mptl_cuda_products {
  mptl_cuda_dnn *dnn;
  mptl_cuda_blas *blas;
};

static mptl_status allocate(mptl_cuda_product **product, mptl_cuda_device *device) {
  *product = calloc(1, sizeof **product);
  if (*product == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  (*product)->device = device;
  return MPTL_OK;
}

static mptl_status finish(mptl_cuda_product **product, mptl_status status) {
  if (status == MPTL_OK) return MPTL_OK;
  mptl_cuda_product_destroy(*product);
  *product = NULL;
  return status;
}

static mptl_status open_products(mptl_cuda_device *d) {
  mptl_cuda_enter(d);
  if (d->products == NULL) d->products = calloc(1, sizeof *d->products);
  return d->products != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory");
}

static mptl_status open_dnn(mptl_cuda_dnn **dnn, mptl_cuda_device *d) {
  MPTL_TRY(open_products(d));
  if (d->products->dnn == NULL)
    MPTL_TRY(mptl_cuda_dnn_create(&d->products->dnn, d->number, d->stream));
  *dnn = d->products->dnn;
  return MPTL_OK;
}

static mptl_status open_blas(mptl_cuda_blas **blas, mptl_cuda_device *d) {
  MPTL_TRY(open_products(d));
  if (d->products->blas == NULL)
    MPTL_TRY(mptl_cuda_blas_create(&d->products->blas, d->number, d->stream));
  *blas = d->products->blas;
  return MPTL_OK;
}

void mptl_cuda_products_close(mptl_cuda_device *d) {
  if (d->products == NULL) return;
  mptl_cuda_enter(d);
  mptl_cuda_dnn_destroy(d->products->dnn);
  mptl_cuda_blas_destroy(d->products->blas);
  free(d->products);
  d->products = NULL;
}

void mptl_cuda_products_announce(mptl_cuda_device *device, const mptl_cuda_announced *list,
                                 size_t n) {
  mptl_cuda_dnn *dnn;
  cpu_set_t cores;
  int threads = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  if (open_dnn(&dnn, device) != MPTL_OK) return;
  mptl_cuda_conv_make_ahead(dnn, list, n, MPTL_CUDA_USUAL_WORKSPACE,
                            threads < MOST_THREADS ? threads : MOST_THREADS);
}

mptl_status mptl_cuda_product_conv(mptl_cuda_product **product, mptl_cuda_device *device,
                                   const mptl_conv_shape *shape, mptl_pass pass, mptl_cuda_pair t) {
  mptl_cuda_dnn *dnn;
  MPTL_TRY(open_dnn(&dnn, device));
  MPTL_TRY(allocate(product, device));
  MPTL_TRY(finish(product, mptl_cuda_conv_create(&(*product)->conv, dnn, shape, pass, t.first,
                                                 t.second, MPTL_CUDA_USUAL_WORKSPACE)));
  snprintf((*product)->engine, sizeof(*product)->engine, "cuDNN %s",
           mptl_cuda_conv_engine((*product)->conv));
  return MPTL_OK;
}

mptl_status mptl_cuda_product_linear(mptl_cuda_product **product, mptl_cuda_device *device,
                                     const mptl_linear_shape *shape, mptl_pass pass,
                                     mptl_cuda_pair t) {
  mptl_cuda_blas *blas;
  MPTL_TRY(open_blas(&blas, device));
  MPTL_TRY(allocate(product, device));
  return finish(product, mptl_cuda_linear_create(&(*product)->linear, blas, shape, pass, t.first,
                                                 t.second, MPTL_CUDA_USUAL_WORKSPACE));
}

void mptl_cuda_product_destroy(mptl_cuda_product *p) {
  if (p == NULL) return;
  mptl_cuda_conv_destroy(p->conv);
  mptl_cuda_linear_destroy(p->linear);
  free(p);
}

size_t mptl_cuda_product_workspace_bytes(const mptl_cuda_product *p) {
  return p->conv ? mptl_cuda_conv_workspace_bytes(p->conv)
                 : mptl_cuda_linear_workspace_bytes(p->linear);
}

const char *mptl_cuda_product_engine(const mptl_cuda_product *p) {
  return p->conv ? p->engine : mptl_cuda_linear_engine(p->linear);
}

mptl_status mptl_cuda_product_run(mptl_cuda_product *p, float *result, const void *first,
                                  const void *second, void *workspace) {
  mptl_cuda_enter(p->device);
  return p->conv ? mptl_cuda_conv_run(p->conv, result, first, second, workspace)
                 : mptl_cuda_linear_run(p->linear, result, first, second, workspace);
}

static char libraries[96];

static void name_libraries(void) {
  snprintf(libraries, sizeof libraries, "CUDA %d.%d, cuDNN %s, cuBLASLt %s", CUDART_VERSION / 1000,
           CUDART_VERSION / 10 % 100, mptl_cuda_dnn_version().text, mptl_cuda_blas_version().text);
}

const char *mptl_cuda_products_libraries(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT; /* threads may ask at the same time */
  pthread_once(&once, name_libraries);
  return libraries;
}

/* Products (engine/backend/cuda/products.c) of two devices that one thread uses in turn. Stand-ins
 * for the libraries check that the right device is the thread's current one. */
#include <pthread.h>
#include <string.h>

#include "../../c/dnn_check.h"
#include "backend/cuda/blas.h"
#include "backend/cuda/dnn_ahead.h"
#include "backend/cuda/dnn_conv.h"
#include "backend/cuda/products.h"

static _Thread_local int current; /* 0 at first, as in CUDA */

void mptl_cuda_enter(mptl_cuda_device *device) { current = device->number; }

/* ---- The libraries: every object has the number of its device ---- */

struct mptl_cuda_dnn {
  int device;
};
struct mptl_cuda_blas {
  int device;
};
struct mptl_cuda_conv {
  int device;
};
struct mptl_cuda_linear {
  int device;
};

static int calls;

#define CALLED(device) (calls++, current == (device))

static void *object_of(int device) {
  int *object = malloc(sizeof *object);
  CHECK(CALLED(device), "device %d is current, not %d", current, device);
  *object = device;
  return object;
}

static void destroy(void *object) {
  if (object == NULL) return;
  calls++;
  free(object);
}

mptl_status mptl_cuda_dnn_create(mptl_cuda_dnn **dnn, int device, cudaStream_t stream) {
  (void)stream;
  *dnn = object_of(device);
  return MPTL_OK;
}
void mptl_cuda_dnn_destroy(mptl_cuda_dnn *dnn) {
  CHECK(dnn == NULL || CALLED(dnn->device), "destroying, device %d is current", current);
  destroy(dnn);
}
mptl_status mptl_cuda_blas_create(mptl_cuda_blas **blas, int device, cudaStream_t stream) {
  (void)stream;
  *blas = object_of(device);
  return MPTL_OK;
}
void mptl_cuda_blas_destroy(mptl_cuda_blas *blas) {
  CHECK(blas == NULL || CALLED(blas->device), "destroying, device %d is current", current);
  destroy(blas);
}
mptl_cuda_version mptl_cuda_dnn_version(void) { return (mptl_cuda_version){"9.1.0"}; }
mptl_cuda_version mptl_cuda_blas_version(void) { return (mptl_cuda_version){"13.1.0"}; }

size_t mptl_cuda_conv_make_ahead(mptl_cuda_dnn *dnn, const mptl_cuda_announced *list, size_t n,
                                 size_t workspace_limit, int threads) {
  (void)list, (void)workspace_limit, (void)threads;
  CHECK(CALLED(dnn->device), "making ahead, device %d is current", current);
  return n;
}
mptl_status mptl_cuda_conv_create(mptl_cuda_conv **conv, mptl_cuda_dnn *dnn,
                                  const mptl_conv_shape *shape, mptl_pass pass,
                                  mptl_cuda_type first, mptl_cuda_type second,
                                  size_t workspace_limit) {
  (void)shape, (void)pass, (void)first, (void)second, (void)workspace_limit;
  *conv = object_of(dnn->device);
  return MPTL_OK;
}
void mptl_cuda_conv_destroy(mptl_cuda_conv *conv) { destroy(conv); }
size_t mptl_cuda_conv_workspace_bytes(const mptl_cuda_conv *conv) { return conv != NULL; }
const char *mptl_cuda_conv_engine(const mptl_cuda_conv *conv) {
  return conv != NULL ? "engine 1" : "";
}
mptl_status mptl_cuda_conv_run(mptl_cuda_conv *conv, float *result, const void *first,
                               const void *second, void *workspace) {
  (void)result, (void)first, (void)second, (void)workspace;
  CHECK(CALLED(conv->device), "a convolution runs, device %d is current", current);
  return MPTL_OK;
}

mptl_status mptl_cuda_linear_create(mptl_cuda_linear **linear, mptl_cuda_blas *blas,
                                    const mptl_linear_shape *shape, mptl_pass pass,
                                    mptl_cuda_type first, mptl_cuda_type second,
                                    size_t workspace_limit) {
  (void)shape, (void)pass, (void)first, (void)second, (void)workspace_limit;
  *linear = object_of(blas->device);
  return MPTL_OK;
}
void mptl_cuda_linear_destroy(mptl_cuda_linear *linear) { destroy(linear); }
size_t mptl_cuda_linear_workspace_bytes(const mptl_cuda_linear *linear) { return linear != NULL; }
const char *mptl_cuda_linear_engine(const mptl_cuda_linear *linear) {
  return linear != NULL ? "algorithm 1" : "";
}
mptl_status mptl_cuda_linear_run(mptl_cuda_linear *linear, float *result, const void *first,
                                 const void *second, void *workspace) {
  (void)result, (void)first, (void)second, (void)workspace;
  CHECK(CALLED(linear->device), "a linear product runs, device %d is current", current);
  return MPTL_OK;
}

/* ---- Two devices ---- */

enum { DEVICES = 2 };

static mptl_cuda_device devices[DEVICES];
static mptl_cuda_product *convs[DEVICES], *linears[DEVICES];

static void create(void) {
  static const mptl_conv_shape conv = {.n = 1};
  static const mptl_linear_shape linear = {.n = 1};
  for (int i = 0; i < DEVICES; i++) devices[i].number = i;
  for (int again = 0; again < 2; again++) /* the first time, the libraries are not open */
    for (int i = 0; i < DEVICES; i++) {
      mptl_cuda_product_destroy(convs[i]);
      mptl_cuda_product_destroy(linears[i]);
      mptl_cuda_products_announce(&devices[i], NULL, 0);
      current = DEVICES;
      MUST(mptl_cuda_product_conv(&convs[i], &devices[i], &conv, MPTL_FORWARD,
                                  (mptl_cuda_pair){.first = MPTL_CUDA_F32}));
      current = DEVICES;
      MUST(mptl_cuda_product_linear(&linears[i], &devices[i], &linear, MPTL_FORWARD,
                                    (mptl_cuda_pair){.first = MPTL_CUDA_F32}));
    }
}

static void *run(void *unused) {
  for (int i = 0; i < DEVICES; i++) {
    MUST(mptl_cuda_product_run(convs[i], NULL, NULL, NULL, NULL));
    MUST(mptl_cuda_product_run(linears[DEVICES - 1 - i], NULL, NULL, NULL, NULL));
  }
  return unused;
}

int main(void) {
  pthread_t thread;
  create();
  run(NULL);
  CHECK(pthread_create(&thread, NULL, run, NULL) == 0, "a thread");
  pthread_join(thread, NULL);
  for (int i = 0; i < DEVICES; i++) {
    mptl_cuda_product_destroy(convs[i]);
    mptl_cuda_product_destroy(linears[i]);
    mptl_cuda_products_close(&devices[i]);
    CHECK(devices[i].products == NULL, "closed");
  }
  CHECK(calls > 0, "the libraries are called");
  CHECK(strstr(mptl_cuda_products_libraries(), "cuDNN 9.1.0, cuBLASLt 13.1.0") != NULL, "%s",
        mptl_cuda_products_libraries());
  return failures != 0;
}

/* Peak rates of the GPU: copies arrays larger than its cache, and runs a convolution that keeps all
 * multiprocessors busy. */
#include <stdlib.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/products.h"
#include "backend/peaks.h"

enum { COPY_BYTES = 2 << 20, IMAGES = 4 }; /* for each multiprocessor */

static mptl_status run_copy(void *state) {
  const mptl_peak_copy *c = state;
  return mptl_cuda_copy(mptl_cuda(c->device), c->to, c->from, c->bytes);
}

typedef struct product {
  mptl_cuda_product *run;
  void *first, *second, *result, *workspace;
} product;

static mptl_status run_product(void *state) {
  const product *p = state;
  return mptl_cuda_product_run(p->run, p->result, p->first, p->second, p->workspace);
}

/* Allocates device memory and fills it with numbers of both signs and many digits: with equal
 * numbers, units take less power and are faster. In any type the numbers are finite; in 32 bits
 * they have at most 11 significant bits. */
static mptl_status make_numbers(mptl_cuda_device *d, void **p, size_t bytes, size_t element) {
  enum { PIECE = 1 << 16 };
  const uint32_t digits = element == sizeof(float) ? 0xffffe000u : 0xffffffffu;
  mptl_status status = MPTL_OK;
  uint32_t *words = malloc(PIECE);
  *p = mptl_cuda_alloc(&d->base, bytes);
  if (words == NULL || *p == NULL) status = mptl_fail(MPTL_ENOMEM, "no memory");
  for (uint32_t i = 0; words != NULL && i < PIECE / sizeof *words; i++) {
    uint32_t x = (i + 1) * 2654435761u;
    words[i] = (((x ^ x >> 15) & 0x9f9f9f9fu) | 0x20202020u) & digits;
  }
  for (size_t at = 0; at < bytes && status == MPTL_OK; at += PIECE)
    status =
        mptl_cuda_upload(&d->base, (char *)*p + at, words, bytes - at < PIECE ? bytes - at : PIECE);
  free(words);
  return status;
}

static mptl_status prepare(mptl_cuda_device *d, product *p, const mptl_conv_shape *shape,
                           mptl_cuda_type type) {
  const size_t size = mptl_cuda_type_size(type);
  MPTL_TRY(mptl_cuda_product_conv(&p->run, d, shape, MPTL_FORWARD,
                                  (mptl_cuda_pair){.first = type, .second = type}));
  MPTL_TRY(make_numbers(d, &p->first, mptl_peak_values(shape) * size, size));
  MPTL_TRY(make_numbers(d, &p->second, mptl_peak_weights(shape) * size, size));
  p->result = mptl_cuda_alloc(&d->base, mptl_peak_values(shape) * sizeof(float));
  p->workspace = mptl_cuda_alloc(&d->base, mptl_cuda_product_workspace_bytes(p->run));
  return p->result && p->workspace ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory on the device");
}

static mptl_conv_shape shape_on(const mptl_cuda_device *d) {
  return mptl_peak_shape(IMAGES * d->multiprocessors);
}

/* Adds the peak of a type to peaks, or nothing if the library has no code for it. */
static mptl_status find_product_peak(mptl_cuda_device *d, mptl_peaks *peaks, const char *name,
                                     mptl_cuda_type type, double seconds) {
  const mptl_conv_shape shape = shape_on(d);
  product p = {.run = NULL};
  double best = 0;
  mptl_status status = prepare(d, &p, &shape, type);
  if (status == MPTL_OK) status = mptl_peak_time(&best, run_product, &p, &d->base, seconds);
  mptl_cuda_synchronize(&d->base); /* so that the memory is not in use; errors were reported */
  mptl_cuda_product_destroy(p.run);
  mptl_cuda_free(&d->base, p.first);
  mptl_cuda_free(&d->base, p.second);
  mptl_cuda_free(&d->base, p.result);
  mptl_cuda_free(&d->base, p.workspace);
  if (status == MPTL_OK) mptl_peak_add(peaks, name, mptl_peak_operations(&shape), best);
  return status == MPTL_EUNSUPPORTED ? MPTL_OK : status;
}

mptl_status mptl_cuda_find_peaks(mptl_device *device, mptl_peaks *peaks, double seconds) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_announced list[MPTL_CUDA_E4M3 + 1];
  for (mptl_cuda_type type = MPTL_CUDA_F32; type <= MPTL_CUDA_E4M3; type++)
    list[type] =
        (mptl_cuda_announced){shape_on(d), MPTL_FORWARD, {1, {{.first = type, .second = type}}}};
  mptl_cuda_products_announce(d, list, sizeof list / sizeof *list);
  const size_t bytes = (size_t)COPY_BYTES * (size_t)d->multiprocessors;
  MPTL_TRY(mptl_peak_of_copy(peaks, run_copy, bytes, device, seconds));
  for (mptl_cuda_type type = MPTL_CUDA_F32; type <= MPTL_CUDA_E4M3; type++)
    MPTL_TRY(find_product_peak(d, peaks, type == MPTL_CUDA_E4M3 ? "fp8" : mptl_cuda_type_name(type),
                               type, seconds));
  return MPTL_OK;
}

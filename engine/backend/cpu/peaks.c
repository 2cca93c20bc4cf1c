/* The peak rates of the CPU: copying an array larger than the caches; multiply-adds in registers in
 * binary32; in bf16 a convolution by oneDNN, whose operands fit the caches. */
#include <omp.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/dnn.h"
#include "backend/peaks.h"
#include "kernels/cpu/products.h"

enum { COPY_BYTES = 64 << 20, IMAGES = 16, REPEATS = 1 << 14 };

static mptl_status run_copy(void *state) {
  const mptl_peak_copy *c = state;
#pragma omp parallel num_threads(c->device->threads)
  {
    size_t share = c->bytes / (size_t)omp_get_num_threads(),
           at = share * (size_t)omp_get_thread_num();
    memcpy(c->to + at, c->from + at, share);
  }
  return MPTL_OK;
}

static mptl_status run_multiply_adds(void *state) {
  const mptl_device *device = state;
  float sum = 0;
#pragma omp parallel num_threads(device->threads) reduction(+ : sum)
  sum += mptl_products()->multiply_adds(REPEATS);
  return sum >= 0 ? MPTL_OK : mptl_fail(MPTL_EBACKEND, "peak rates: a sum of %g", (double)sum);
}

typedef struct product {
  mptl_dnn *dnn;
  void *memory[5];
} product;

enum { INPUT, OUTPUT, WEIGHTS, PACKED, SCRATCH };

static mptl_status run_product(void *state) {
  product *p = state;
  return mptl_dnn_forward(p->dnn, p->memory[OUTPUT], p->memory[INPUT], p->memory[PACKED], NULL);
}

/* Allocates the operands and fills them with zeros, which processors multiply as fast as others. */
static mptl_status prepare(product *p, const mptl_conv_shape *shape) {
  const size_t values = mptl_peak_values(shape) * sizeof(float);
  const size_t bytes[] = {values, values, mptl_peak_weights(shape) * sizeof(float),
                          mptl_dnn_packed_bytes(p->dnn, MPTL_FORWARD),
                          mptl_dnn_scratch_bytes(p->dnn)};
  for (int i = 0; i < (int)(sizeof bytes / sizeof *bytes); i++) {
    if ((p->memory[i] = mptl_memory_alloc(bytes[i])) == NULL)
      return mptl_fail(MPTL_ENOMEM, "peak rates: no memory for %zu bytes", bytes[i]);
    memset(p->memory[i], 0, bytes[i]);
  }
  mptl_dnn_use_scratch(p->dnn, p->memory[SCRATCH]);
  return mptl_dnn_pack(p->dnn, MPTL_FORWARD, p->memory[PACKED], p->memory[WEIGHTS]);
}

static mptl_status find_product_peak(mptl_device *device, mptl_peaks *peaks, const char *name,
                                     mptl_compute type, double seconds) {
  const mptl_conv_shape shape = mptl_peak_shape(IMAGES);
  const mptl_compute compute[MPTL_PASSES] = {type, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  product p = {.dnn = NULL};
  double best = 0;
  MPTL_TRY(mptl_dnn_conv_create(&p.dnn, device->threads, &shape, compute));
  mptl_status status = prepare(&p, &shape);
  if (status == MPTL_OK) status = mptl_peak_time(&best, run_product, &p, device, seconds);
  mptl_dnn_destroy(p.dnn);
  for (int i = 0; i < (int)(sizeof p.memory / sizeof *p.memory); i++) mptl_memory_free(p.memory[i]);
  if (status == MPTL_OK) mptl_peak_add(peaks, name, mptl_peak_operations(&shape), best);
  return status;
}

mptl_status mptl_cpu_find_peaks(mptl_device *device, mptl_peaks *peaks, double seconds) {
  double best;
  MPTL_TRY(mptl_peak_of_copy(peaks, run_copy, COPY_BYTES, device, seconds));
  MPTL_TRY(mptl_peak_time(&best, run_multiply_adds, device, device, seconds));
  mptl_peak_add(peaks, "f32",
                2.0 * REPEATS * (double)mptl_products()->multiply_adds_each * device->threads,
                best);
  return mptl_dnn_supports(MPTL_COMPUTE_BF16)
             ? find_product_peak(device, peaks, "bf16", MPTL_COMPUTE_BF16, seconds)
             : MPTL_OK;
}

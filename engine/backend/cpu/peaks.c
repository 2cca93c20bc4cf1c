/* The peak rates of the CPU: copying an array larger than the caches; multiply-adds in registers, in
 * binary32 and in bf16. */
#include <omp.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/peaks.h"
#include "kernels/cpu/bf16.h"

enum { COPY_BYTES = 64 << 20, REPEATS = 1 << 14 };

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

static mptl_status run_bf16(void *state) {
  const mptl_device *device = state;
  const mptl_bf16_kernels *kernels = mptl_bf16();
  float sum = 0;
#pragma omp parallel num_threads(device->threads) reduction(+ : sum)
  {
    kernels->begin();
    sum += kernels->multiply_adds(REPEATS);
    kernels->end();
  }
  return sum >= 0 ? MPTL_OK : mptl_fail(MPTL_EBACKEND, "peak rates: a sum of %g", (double)sum);
}

/* Adds the rate of REPEATS * each multiply-adds by every thread. */
static mptl_status add_rate(mptl_device *device, mptl_peaks *peaks, const char *name,
                            mptl_status (*run)(void *), size_t each, double seconds) {
  double best;
  MPTL_TRY(mptl_peak_time(&best, run, device, device, seconds));
  mptl_peak_add(peaks, name, 2.0 * REPEATS * (double)each * device->threads, best);
  return MPTL_OK;
}

mptl_status mptl_cpu_find_peaks(mptl_device *device, mptl_peaks *peaks, double seconds) {
  MPTL_TRY(mptl_peak_of_copy(peaks, run_copy, COPY_BYTES, device, seconds));
  MPTL_TRY(add_rate(device, peaks, "f32", run_multiply_adds, mptl_products()->multiply_adds_each,
                    seconds));
  return mptl_bf16() == NULL
             ? MPTL_OK
             : add_rate(device, peaks, "bf16", run_bf16, mptl_bf16()->multiply_adds_each, seconds);
}

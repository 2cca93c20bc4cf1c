/* Ranges of results, for FP(e,m,auto): runs a stage without storing anything, and waits for the
 * largest magnitudes. This is simple and slow: products are computed twice, and a stage of n
 * operators with such results n + 1 times.
 */
#include "backend/cuda/cuda.h"

enum { FOUND = 2 * MPTL_MAX_INPUTS }; /* for sinks of the operator, then for all other sinks */

/* Sets device->found, in device memory, to zeros. */
static mptl_status clear(mptl_cuda_device *d) {
  if (d->found == NULL) d->found = mptl_cuda_alloc(&d->base, FOUND * sizeof *d->found);
  if (d->found == NULL) return mptl_fail(MPTL_ENOMEM, "no memory on the device");
  return mptl_cuda_zero(&d->base, d->found, FOUND * sizeof *d->found);
}

void mptl_cuda_find_ranges_of(mptl_call *call, bool forward, mptl_round_stats *found) {
  mptl_sink *sinks;
  mptl_call_find_ranges(call, forward, found);
  for (int k = mptl_call_sinks(call, forward, &sinks) - 1; k >= 0; k--) {
    sinks[k].data = NULL;
    sinks[k].size = 0;
    sinks[k].accumulate = false;
  }
}

mptl_status mptl_cuda_find_ranges(mptl_device *device, const mptl_stage *stage,
                                  const mptl_step *step, bool forward, int i, float *largest) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_round_stats results[MPTL_MAX_INPUTS];
  MPTL_TRY(clear(d));
  MPTL_TRY(mptl_cuda_run(d, stage, step, forward, i, d->found));
  MPTL_TRY(mptl_cuda_download(device, results, d->found, sizeof results));
  for (int k = 0; k < MPTL_MAX_INPUTS; k++) largest[k] = results[k].max_abs;
  return MPTL_OK;
}

mptl_status mptl_cuda_largest(mptl_device *device, float *largest, const float *x, size_t n) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_source source = {.data = mptl_cuda_address(d, x), .size = sizeof *x};
  MPTL_TRY(clear(d));
  MPTL_TRY(MPTL_CUDA_LAUNCH(d, mptl_cuda_max_abs(&d->found->max_abs, &source, n, d->stream)));
  return mptl_cuda_download(device, largest, &d->found->max_abs, sizeof *largest);
}

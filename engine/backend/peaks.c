/* Measures peaks: see peaks.h. */
#include "backend/peaks.h"

#include "core/clock.h"

enum { CHANNELS = 128, SIDE = 16, KERNEL = 3 };

static const double turn = 2e-3; /* seconds: long compared with waiting for a device */

mptl_status mptl_peak_time(double *best, mptl_peak_job *job, void *state, mptl_device *device,
                           double seconds) {
  const double start = mptl_now();
  int runs = 1;
  *best = 1e9;
  do {
    const double from = mptl_now();
    for (int i = 0; i < runs; i++) MPTL_TRY(job(state));
    MPTL_TRY(device->backend->synchronize(device));
    const double time = mptl_now() - from;
    if (time / runs < *best) *best = time / runs;
    if (time < turn) runs *= 2;
  } while (mptl_now() - start < seconds);
  return MPTL_OK;
}

mptl_status mptl_peak_of_copy(mptl_peaks *peaks, mptl_peak_job *job, size_t bytes,
                              mptl_device *device, double seconds) {
  const mptl_backend *b = device->backend;
  mptl_peak_copy c = {device, b->alloc(device, bytes), b->alloc(device, bytes), bytes};
  double best = 0;
  mptl_status status = MPTL_OK;
  if (!c.to || !c.from)
    status = mptl_fail(MPTL_ENOMEM, "peak of copying: no memory for %zu bytes%s", bytes,
                       b->is_host ? "" : " on the device");
  if (status == MPTL_OK) status = b->zero(device, c.from, bytes);
  if (status == MPTL_OK) status = mptl_peak_time(&best, job, &c, device, seconds);
  b->free(device, c.to);
  b->free(device, c.from);
  if (status == MPTL_OK) peaks->copy_gb_per_s = 2e-9 * (double)bytes / best;
  return status;
}

mptl_conv_shape mptl_peak_shape(int images) {
  return (mptl_conv_shape){.n = images,
                           .ic = CHANNELS,
                           .ih = SIDE,
                           .iw = SIDE,
                           .oc = CHANNELS,
                           .oh = SIDE,
                           .ow = SIDE,
                           .kh = KERNEL,
                           .kw = KERNEL,
                           .sh = 1,
                           .sw = 1,
                           .ph = KERNEL / 2,
                           .pw = KERNEL / 2,
                           .dh = 1,
                           .dw = 1,
                           .groups = 1};
}

size_t mptl_peak_values(const mptl_conv_shape *s) {
  return (size_t)s->n * (size_t)s->ih * (size_t)s->iw * (size_t)s->ic;
}

size_t mptl_peak_weights(const mptl_conv_shape *s) {
  return (size_t)s->oc * (size_t)s->ic * (size_t)s->kh * (size_t)s->kw;
}

double mptl_peak_operations(const mptl_conv_shape *s) {
  return 2.0 * (double)mptl_peak_weights(s) * (double)s->n * (double)s->oh * (double)s->ow;
}

void mptl_peak_add(mptl_peaks *peaks, const char *name, double operations, double seconds) {
  peaks->multiply[peaks->types].name = name;
  peaks->multiply[peaks->types++].gflop_per_s = 1e-9 * operations / seconds;
}

/* FP(e,m,auto): bias shifts that are fitted to an operator's results before the first of these is rounded (mptl_sink of backend.h).
 *
 * A stage is run without storing anything but what the next run computes again, once for each operator that has results to fit, in the
 * order in which they come about; the host waits each time for the largest magnitudes. Then it is run as always. That is slow and
 * simple: products are computed twice, a stage of n such operators n + 1 times.
 */
#include <string.h>

#include "backend/cuda/cuda.h"

enum { SINKS = MPTL_CUDA_STAGE_OPS * MPTL_MAX_INPUTS };

/* device->found, in its memory: what was found of sink k of operator i, at i * MPTL_MAX_INPUTS + k. */
static mptl_status clear(mptl_cuda_device *d) {
  if (d->found == NULL) d->found = mptl_cuda_alloc(&d->base, SINKS * sizeof *d->found);
  if (d->found == NULL) return mptl_fail(MPTL_ENOMEM, "no memory on the device");
  return mptl_cuda_zero(&d->base, d->found, SINKS * sizeof *d->found);
}

/* The sinks of an operator in one direction: the output's, or those of the inputs' gradients. */
static int sinks_of(mptl_call *c, bool forward, mptl_sink **sinks) {
  *sinks = forward ? &c->y : c->dx;
  return forward ? 1 : c->op->n_in;
}

static bool has_fits(mptl_call *c, bool forward) {
  mptl_sink *sinks;
  for (int k = sinks_of(c, forward, &sinks) - 1; k >= 0; k--)
    if (mptl_fits(&sinks[k])) return true;
  return false;
}

/* The call as it measures: its sinks store nothing and count elsewhere, its running statistics stay as they are. */
static void set_measuring(mptl_call *c, bool forward, int i) {
  mptl_sink *sinks;
  for (int k = sinks_of(c, forward, &sinks) - 1; k >= 0; k--) {
    sinks[k].data = NULL;
    sinks[k].size = 0;
    sinks[k].accumulate = false;
    sinks[k].exponents = NULL;
    sinks[k].stats = &mptl_cuda_of(c)->found[i * MPTL_MAX_INPUTS + k];
  }
  c->weights.stats = NULL;
  c->weights.exponents = NULL;
  if (c->train) memset(c->buffers, 0, sizeof c->buffers);
}

/* Fits what operator i gives, the operators in front of it (or behind it, in backward) being fitted already. */
static mptl_status fit(mptl_cuda_device *d, mptl_stage *s, int i, bool forward, mptl_cuda_run *run) {
  mptl_call calls[MPTL_CUDA_STAGE_OPS], *addresses[MPTL_CUDA_STAGE_OPS];
  mptl_round_stats results[MPTL_MAX_INPUTS];
  mptl_stage measuring = {.n = s->n, .calls = addresses, .scratch = s->scratch};
  mptl_sink *sinks;
  MPTL_TRY(clear(d));
  for (int j = 0; j < s->n; j++) {
    calls[j] = *s->calls[j];
    addresses[j] = &calls[j];
    set_measuring(&calls[j], forward, j);
  }
  MPTL_TRY(run(d, &measuring, forward));
  MPTL_TRY(mptl_cuda_download(&d->base, results, &d->found[i * MPTL_MAX_INPUTS], sizeof results));
  for (int k = sinks_of(s->calls[i], forward, &sinks) - 1; k >= 0; k--)
    if (mptl_fits(&sinks[k])) mptl_rounder_fit(sinks[k].rounder, results[k].max_abs);
  return MPTL_OK;
}

mptl_status mptl_cuda_fit(mptl_cuda_device *d, mptl_stage *s, bool forward, mptl_cuda_run *run) {
  for (int n = 0; n < s->n; n++) {
    int i = forward ? n : s->n - 1 - n;
    if (has_fits(s->calls[i], forward)) MPTL_TRY(fit(d, s, i, forward, run));
  }
  return MPTL_OK;
}

mptl_status mptl_cuda_largest(mptl_device *device, float *largest, const float *x, size_t n) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_source source = {.data = mptl_cuda_address(d, x), .size = sizeof *x};
  MPTL_TRY(clear(d));
  MPTL_TRY(MPTL_CUDA_LAUNCH(d, mptl_cuda_max_abs(mptl_cuda_address(d, &d->found->max_abs), &source, n, d->stream)));
  return mptl_cuda_download(device, largest, &d->found->max_abs, sizeof *largest);
}

/* The CUDA backend's inside. It has little of its own: stages of pointwise operators and everything else that is not a matrix product
 * are launches of kernels/cuda/kernels.h, products are products.h's, and these files say with which operands.
 *
 * All work of a device goes to one stream, in order; nothing waits but downloads (runtime.h). Scratch memory is as large as the batch needs.
 */
#ifndef MPTL_BACKEND_CUDA_CUDA_H
#define MPTL_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/announced.h"

/* A kind that is not pointwise: a stage by itself. */
typedef struct mptl_cuda_kind_row {
  const char *kind;
  mptl_status (*create)(mptl_call *call);                 /* NULL: it has no state */
  void (*destroy)(mptl_call *call);                       /* NULL: nothing to release */
  mptl_status (*prepare)(mptl_call *call, size_t *bytes); /* NULL: it takes no scratch memory */
  mptl_status (*forward)(mptl_call *call);
  mptl_status (*backward)(mptl_call *call);
} mptl_cuda_kind_row;

extern const mptl_cuda_kind_row mptl_cuda_conv2d, mptl_cuda_linear_layer, mptl_cuda_avgpool, mptl_cuda_maxpool, mptl_cuda_mean,
    mptl_cuda_concat_channels, mptl_cuda_slice_channels, mptl_cuda_log_softmax, mptl_cuda_nll_loss;

/* The call's device, and its stream. */
static inline mptl_cuda_device *mptl_cuda_of(const mptl_call *call) { return mptl_cuda(call->device); }
static inline mptl_cuda_stream mptl_cuda_stream_of(const mptl_call *call) { return mptl_cuda_of(call)->stream; }

/* Stages of pointwise operators (stage.c). */
bool mptl_cuda_is_pointwise(const mptl_call *call);
mptl_status mptl_cuda_prepare_stage(mptl_cuda_device *device, mptl_stage *stage, size_t *bytes);
mptl_status mptl_cuda_run_stage(mptl_cuda_device *device, mptl_stage *stage, bool forward);

/* FP(e,m,auto) (fit.c): fits the rounders of a stage's results, before it is run, in one direction. Largest finite magnitude of an array,
 * to the host. Both wait for the device. */
typedef mptl_status mptl_cuda_run(mptl_cuda_device *device, mptl_stage *s, bool forward);
mptl_status mptl_cuda_fit(mptl_cuda_device *device, mptl_stage *s, bool forward, mptl_cuda_run *run);
mptl_status mptl_cuda_largest(mptl_device *device, float *largest, const float *x, size_t n);

/* mptl_backend's measure (floor.c). */
mptl_status mptl_cuda_measure(mptl_device *device, mptl_floor *floor, double seconds);

/* mptl_backend's expect and product (gemm.c). */
void mptl_cuda_expect(mptl_device *device, mptl_call *const *calls, int n);
bool mptl_cuda_product_way(mptl_device *device, mptl_product_way *way, const mptl_call *call, int pass);

/* mptl_backend's compute, and what a pass may be multiplied as (choices.c). */
mptl_cuda_choices mptl_cuda_choices_of(const mptl_call *call, mptl_pass pass);
const char *mptl_cuda_compute(mptl_device *device, mptl_format a, mptl_format b, int groups, mptl_compute_setting setting);

/* ---- Operands as the kernels take them ---- */

static inline mptl_cuda_source mptl_cuda_source_of(const mptl_cuda_device *d, const mptl_source *s) {
  return (mptl_cuda_source){.data = mptl_cuda_address(d, s->data), .size = s->size, .rounder = s->rounder};
}

static inline mptl_cuda_sink mptl_cuda_sink_of(const mptl_cuda_device *d, const mptl_sink *s) {
  return (mptl_cuda_sink){.data = mptl_cuda_address(d, s->data),
                          .size = s->size,
                          .rounder = s->rounder,
                          .key = s->key,
                          .index0 = s->index0,
                          .accumulate = s->accumulate,
                          .stats = s->wanted ? mptl_cuda_address(d, s->stats) : NULL,
                          .exponents = mptl_cuda_address(d, s->exponents)};
}

static inline mptl_cuda_rounding mptl_cuda_rounding_of(const mptl_cuda_device *d, const mptl_rounding *a) {
  return (mptl_cuda_rounding){.dst = mptl_cuda_address(d, a->dst),
                              .src = mptl_cuda_address(d, a->src),
                              .n = a->n,
                              .rounder = a->rounder,
                              .key = a->key,
                              .index0 = a->index0,
                              .stats = mptl_cuda_address(d, a->stats),
                              .exponents = mptl_cuda_address(d, a->exponents)};
}

static inline mptl_shape mptl_cuda_out_shape(const mptl_call *call) { return call->graph->values[call->op->out].shape; }

enum { MPTL_CUDA_ALIGN = 256 }; /* bytes: of cuBLASLt's workspace */

static inline size_t mptl_cuda_aligned(size_t bytes) { return (bytes + MPTL_CUDA_ALIGN - 1) / MPTL_CUDA_ALIGN * MPTL_CUDA_ALIGN; }

#endif

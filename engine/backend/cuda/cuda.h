/* The inside of the CUDA backend. Its files choose operands. products.h computes matrix products;
 * kernels/cuda/kernels.h launches everything else.
 *
 * All work of a device goes to one CUDA stream, in order. Only downloads wait (runtime.h). Scratch
 * memory is large enough for the whole batch.
 */
#ifndef MPTL_BACKEND_CUDA_CUDA_H
#define MPTL_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/announced.h"

/* A row of the table of operators, by id. Pointwise operators have NULL functions (stage.c runs
 * them); every other operator is a stage by itself. */
typedef struct mptl_cuda_row {
  bool pointwise;
  mptl_status (*create)(void **state, const mptl_call *call); /* NULL: there is no state */
  void (*destroy)(void *state);                               /* NULL: nothing to release */
  mptl_status (*prepare)(const mptl_call *call,
                         size_t *bytes); /* NULL: it needs no scratch memory */
  mptl_status (*forward)(const mptl_call *call);
  mptl_status (*backward)(const mptl_call *call);
} mptl_cuda_row;

#define MPTL_DECLARE_CUDA_ROW(name, NAME) extern const mptl_cuda_row mptl_cuda_op_##name;
MPTL_OPERATORS(MPTL_DECLARE_CUDA_ROW)
#undef MPTL_DECLARE_CUDA_ROW

/* Like mptl_call_of. In the host-built plug-in, also ends the process if an address is not the
 * device's. */
void mptl_cuda_call_of(mptl_call *call, const mptl_member *member, const mptl_step *step,
                       void *scratch);

/* The call's device, and its stream. */
static inline mptl_cuda_device *mptl_cuda_of(const mptl_call *call) {
  return mptl_cuda(call->device);
}
static inline mptl_cuda_stream mptl_cuda_stream_of(const mptl_call *call) {
  return mptl_cuda_of(call)->stream;
}

/* Prepares and runs a stage of pointwise operators (stage.c). ranges_of: index of the operator
 * whose ranges are written to found, while nothing is stored; -1: an ordinary run. */
mptl_status mptl_cuda_prepare_stage(const mptl_stage *stage, size_t *bytes);
mptl_status mptl_cuda_run_stage(mptl_cuda_device *device, const mptl_stage *stage,
                                const mptl_step *step, bool forward, int ranges_of,
                                mptl_round_stats *found);

/* Makes the call's sinks find ranges, like mptl_call_find_ranges, and store nothing. */
void mptl_cuda_find_ranges_of(mptl_call *call, bool forward, mptl_round_stats *found);

/* mptl_backend's find_ranges and max_abs (ranges.c). Both wait for the device. */
mptl_status mptl_cuda_find_ranges(mptl_device *device, const mptl_stage *stage,
                                  const mptl_step *step, bool forward, int i, float *largest);
mptl_status mptl_cuda_largest(mptl_device *device, float *largest, const float *x, size_t n);

/* Runs a stage, or finds the ranges of its operator `ranges_of` (backend.c). */
mptl_status mptl_cuda_run(mptl_cuda_device *device, const mptl_stage *stage, const mptl_step *step,
                          bool forward, int ranges_of, mptl_round_stats *found);

/* mptl_backend's find_peaks (peaks.c). */
mptl_status mptl_cuda_find_peaks(mptl_device *device, mptl_peaks *peaks, double seconds);

/* mptl_backend's expect and product (gemm.c). */
void mptl_cuda_expect(mptl_device *device, const mptl_member *members, int n);
bool mptl_cuda_product_way(mptl_device *device, mptl_product_way *way, const mptl_member *member,
                           int pass);

/* The types in which a pass may be multiplied, and mptl_backend's compute (choices.c). */
mptl_cuda_choices mptl_cuda_choices_of(const mptl_call *call, mptl_pass pass);
const char *mptl_cuda_compute(mptl_device *device, mptl_format a, mptl_format b, int groups,
                              size_t parameters, mptl_compute_setting setting);

enum { MPTL_CUDA_ALIGN = 256 }; /* in bytes, for cuBLASLt's workspace */

static inline size_t mptl_cuda_aligned(size_t bytes) {
  return (bytes + MPTL_CUDA_ALIGN - 1) / MPTL_CUDA_ALIGN * MPTL_CUDA_ALIGN;
}

#endif

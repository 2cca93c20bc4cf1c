/* log_softmax and nll_loss: a row of classes a sample. */
#include <math.h>

#include "kernels/cuda/elements.h"

enum { ROW_THREADS = 32 }; /* a warp takes a row */

/* The sum of what the lanes have, in a fixed order; in all of them. */
MPTL_DEVICE double sum_of_lanes(double x) {
  for (unsigned d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

MPTL_DEVICE float maximum_of_lanes(float x) {
  for (unsigned d = 16; d > 0; d /= 2) {
    float y = __shfl_xor_sync(0xffffffffu, x, d);
    x = y > x ? y : x;
  }
  return x;
}

/* y = x - max - log(sum exp(x - max)) */
static __global__ void __launch_bounds__(ROW_THREADS)
    softmax_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, size_t batch, size_t classes) {
  mptl_counts counts = mptl_no_counts();
  size_t row = blockIdx.x * classes;
  float max = mptl_read_one(x, row);
  double sum = 0;
  for (size_t i = threadIdx.x; i < classes; i += ROW_THREADS) {
    float value = mptl_read_one(x, row + i);
    max = value > max ? value : max;
  }
  max = maximum_of_lanes(max);
  for (size_t i = threadIdx.x; i < classes; i += ROW_THREADS) sum += exp((double)mptl_read_one(x, row + i) - (double)max);
  double shift = (double)max + log(sum_of_lanes(sum));
  for (size_t i = threadIdx.x; i < classes; i += ROW_THREADS)
    mptl_put(y, row + i, row + i, (float)((double)mptl_read_one(x, row + i) - shift), &counts);
  __syncwarp();
  mptl_add_counts(y.stats, counts, batch * classes);
}

/* dx = dy - exp(y) sum(dy) */
static __global__ void __launch_bounds__(ROW_THREADS)
    softmax_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg y, MPTL_PARAM mptl_source_arg dy,
                            size_t batch, size_t classes) {
  mptl_counts counts = mptl_no_counts();
  size_t row = blockIdx.x * classes;
  double sum = 0;
  for (size_t i = threadIdx.x; i < classes; i += ROW_THREADS) sum += (double)mptl_read_one(dy, row + i);
  sum = sum_of_lanes(sum);
  for (size_t i = threadIdx.x; i < classes; i += ROW_THREADS) {
    double d = (double)mptl_read_one(dy, row + i) - exp((double)mptl_read_one(y, row + i)) * sum;
    mptl_put(dx, row + i, row + i, (float)d, &counts);
  }
  __syncwarp();
  mptl_add_counts(dx.stats, counts, batch * classes);
}

int mptl_cuda_log_softmax_forward(const mptl_cuda_sink *y, const mptl_cuda_source *x, size_t batch, size_t classes,
                                  mptl_cuda_stream stream) {
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(softmax_forward_kernel, (unsigned)batch, ROW_THREADS, 0, stream)
  (mptl_sink_of(y, 0), mptl_source_of(x, 0), batch, classes);
  return mptl_launched();
}

int mptl_cuda_log_softmax_backward(const mptl_cuda_sink *dx, const mptl_cuda_source *y, const mptl_cuda_source *dy, size_t batch,
                                   size_t classes, mptl_cuda_stream stream) {
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(softmax_backward_kernel, (unsigned)batch, ROW_THREADS, 0, stream)
  (mptl_sink_of(dx, 0), mptl_source_of(y, 0), mptl_source_of(dy, 0), batch, classes);
  return mptl_launched();
}

/* ---- nll_loss ---- */

/* One block: each thread some samples, then one of them the sum, in order. rounded: y as it is read. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    nll_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg rounded, MPTL_PARAM mptl_source_arg x,
                       const int32_t *labels, size_t batch, size_t classes, size_t valid, mptl_cuda_loss *loss) {
  __shared__ uint32_t correct, bad;
  __shared__ float losses[MPTL_THREADS]; /* read by all threads at once: one alone would wait for each */
  mptl_counts counts = mptl_no_counts();
  if (threadIdx.x == 0) correct = 0, bad = 0xffffffffu;
  __syncthreads();
  for (size_t i = threadIdx.x; i < batch; i += MPTL_THREADS) {
    float value = 0;
    if (i < valid) {
      int32_t label = labels[i];
      size_t best = 0;
      float largest = mptl_read_one(x, i * classes);
      for (size_t k = 1; k < classes; k++) {
        float at = mptl_read_one(x, i * classes + k);
        if (at > largest) largest = at, best = k;
      }
      if (label < 0 || (size_t)label >= classes) {
        value = __uint_as_float(MPTL_F32_INF | MPTL_F32_QUIET);
        atomicMin(&bad, (uint32_t)i);
      } else {
        value = -mptl_read_one(x, i * classes + (size_t)label);
        if (best == (size_t)label) atomicAdd(&correct, 1u);
      }
    }
    mptl_put(y, i, i, value, &counts);
  }
  double sum = 0;
  for (size_t at = 0; at < valid; at += MPTL_THREADS) {
    __syncthreads();
    if (at + threadIdx.x < valid) losses[threadIdx.x] = mptl_read_one(rounded, at + threadIdx.x);
    __syncthreads();
    for (size_t i = 0; threadIdx.x == 0 && i < MPTL_THREADS && at + i < valid; i++) sum += (double)losses[i];
  }
  __syncthreads();
  mptl_add_counts(y.stats, counts, batch);
  if (threadIdx.x != 0) return;
  loss->sum = sum, loss->correct = (int32_t)correct, loss->bad_label = (int32_t)bad;
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    nll_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg dy, const int32_t *labels, size_t batch,
                        size_t classes) {
  mptl_counts counts = mptl_no_counts();
  for (size_t i = mptl_first_element(); i < batch * classes; i += mptl_element_step()) {
    size_t sample = i / classes;
    mptl_put(dx, i, i, i % classes == (size_t)labels[sample] ? -mptl_read_one(dy, sample) : 0.0f, &counts);
  }
  mptl_add_counts(dx.stats, counts, batch * classes);
}

int mptl_cuda_nll_loss_forward(const mptl_cuda_sink *y, const mptl_cuda_source *x, const int32_t *labels, size_t batch,
                               size_t classes, size_t valid, mptl_cuda_loss *loss, mptl_cuda_stream stream) {
  if (y->accumulate) return MPTL_INVALID_VALUE;
  mptl_cuda_source rounded = {y->data, y->size, y->rounder};
  MPTL_LAUNCH(nll_forward_kernel, 1, MPTL_THREADS, 0, stream)
  (mptl_sink_of(y, 0), mptl_source_of(&rounded, 0), mptl_source_of(x, 0), labels, batch, classes, valid, loss);
  return mptl_launched();
}

int mptl_cuda_nll_loss_backward(const mptl_cuda_sink *dx, const mptl_cuda_source *dy, const int32_t *labels, size_t batch,
                                size_t classes, mptl_cuda_stream stream) {
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(nll_backward_kernel, mptl_blocks(batch * classes), MPTL_THREADS, 0, stream)
  (mptl_sink_of(dx, 0), mptl_source_of(dy, 0), labels, batch, classes);
  return mptl_launched();
}

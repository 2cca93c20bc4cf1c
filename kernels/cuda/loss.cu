/* log_softmax and nll_loss: a row of classes a sample, a warp for each. */
#include <math.h>

#include "kernels/cuda/rows.h"

using namespace mptl_rows;

/* ---- log_softmax ---- */

MPTL_DEVICE float maximum_of_lanes(float x) {
  for (unsigned d = 16; d > 0; d /= 2) {
    float y = __shfl_xor_sync(0xffffffffu, x, d);
    x = y > x ? y : x;
  }
  return x;
}

/* y = x - max - log(sum exp(x - max)) */
static __global__ void __launch_bounds__(ROW_THREADS)
    softmax_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, size_t batch, size_t classes,
                           size_t floats) {
  MPTL_DYNAMIC_SHARED(float, shared);
  float *copy = copy_of(shared, floats, 1, 0);
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < batch; r += row_step()) {
    size_t row = r * classes;
    copy_row(copy, x, row, classes);
    float max = element(copy, x, row, 0);
    double sum = 0;
    for (size_t i = mptl_lane(); i < classes; i += 32) {
      float value = element(copy, x, row, i);
      max = value > max ? value : max;
    }
    max = maximum_of_lanes(max);
    for (size_t i = mptl_lane(); i < classes; i += 32) sum += exp((double)element(copy, x, row, i) - (double)max);
    double shift = (double)max + log(sum_of_lanes(sum));
    for (size_t i = mptl_lane(); i < classes; i += 32)
      mptl_put(y, row + i, row + i, (float)((double)element(copy, x, row, i) - shift), &counts);
  }
  mptl_add_counts(y.stats, counts, batch * classes);
}

/* dx = dy - exp(y) sum(dy) */
static __global__ void __launch_bounds__(ROW_THREADS)
    softmax_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg y, MPTL_PARAM mptl_source_arg dy,
                            size_t batch, size_t classes, size_t floats) {
  MPTL_DYNAMIC_SHARED(float, shared);
  float *y_copy = copy_of(shared, floats, 2, 0), *dy_copy = copy_of(shared, floats, 2, 1);
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < batch; r += row_step()) {
    size_t row = r * classes;
    copy_row(y_copy, y, row, classes);
    copy_row(dy_copy, dy, row, classes);
    double sum = 0;
    for (size_t i = mptl_lane(); i < classes; i += 32) sum += (double)element(dy_copy, dy, row, i);
    sum = sum_of_lanes(sum);
    for (size_t i = mptl_lane(); i < classes; i += 32) {
      double d = (double)element(dy_copy, dy, row, i) - exp((double)element(y_copy, y, row, i)) * sum;
      mptl_put(dx, row + i, row + i, (float)d, &counts);
    }
  }
  mptl_add_counts(dx.stats, counts, batch * classes);
}

int mptl_cuda_log_softmax_forward(const mptl_sink *y, const mptl_source *x, size_t batch, size_t classes,
                                  mptl_cuda_stream stream) {
  size_t floats = copy_floats(classes);
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(softmax_forward_kernel, blocks_of(batch), ROW_THREADS, ROW_WARPS * floats * sizeof(float), stream)
  (mptl_sink_of(y, 0), mptl_source_of(x, classes), batch, classes, floats);
  return mptl_launched();
}

int mptl_cuda_log_softmax_backward(const mptl_sink *dx, const mptl_source *y, const mptl_source *dy, size_t batch, size_t classes,
                                   mptl_cuda_stream stream) {
  size_t floats = copy_floats(classes);
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(softmax_backward_kernel, blocks_of(batch), ROW_THREADS, ROW_WARPS * 2 * floats * sizeof(float), stream)
  (mptl_sink_of(dx, 0), mptl_source_of(y, classes), mptl_source_of(dy, classes), batch, classes, floats);
  return mptl_launched();
}

/* ---- nll_loss ---- */

/* The place of a row's largest element, of equals the first; in all lanes. Nothing is larger than a NaN in front, and no other NaN is. */
MPTL_DEVICE uint32_t find_largest(const mptl_source_arg &x, size_t row, size_t classes) {
  float largest = mptl_read_one(x, row);
  uint32_t at = 0;
  for (size_t i = mptl_lane() * MPTL_WIDE; i < classes; i += 32 * MPTL_WIDE) {
    unsigned n = mptl_count_at(i, classes);
    float values[MPTL_WIDE];
    mptl_read_wide(values, x, row + i, n);
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n && values[k] > largest) largest = values[k], at = (uint32_t)i + k;
  }
  for (unsigned d = 16; d > 0; d /= 2) {
    float other = __shfl_xor_sync(0xffffffffu, largest, d);
    uint32_t other_at = __shfl_xor_sync(0xffffffffu, at, d);
    if (other > largest || (other == largest && other_at < at)) largest = other, at = other_at;
  }
  return at;
}

/* The samples' losses. What is told of the batch is zeros before; bad_label becomes the complement of the number, none being the largest:
 * nll_sum_kernel puts it right. */
static __global__ void __launch_bounds__(ROW_THREADS)
    nll_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, const int32_t *labels, size_t batch,
                       size_t classes, size_t valid, mptl_loss *loss) {
  mptl_counts counts = mptl_no_counts();
  int32_t correct = 0;
  for (size_t r = first_row(); r < batch; r += row_step()) {
    uint32_t largest = r < valid ? find_largest(x, r * classes, classes) : 0;
    if (mptl_lane() != 0) continue;
    float value = 0;
    if (r < valid) {
      int32_t label = labels[r];
      if (label < 0 || (size_t)label >= classes) {
        value = __uint_as_float(MPTL_F32_INF | MPTL_F32_QUIET);
        atomicMax((uint32_t *)&loss->bad_label, ~(uint32_t)r);
      } else {
        value = -mptl_read_one(x, r * classes + (size_t)label);
        correct += largest == (uint32_t)label;
      }
    }
    mptl_put(y, r, r, value, &counts);
  }
  if (correct > 0) atomicAdd(&loss->correct, correct);
  mptl_add_counts(y.stats, counts, batch);
}

/* One block: all threads read, one adds, in order. losses: y as it is read. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    nll_sum_kernel(MPTL_PARAM mptl_source_arg losses, size_t valid, mptl_loss *loss) {
  MPTL_SHARED(double, values, [MPTL_THREADS]);
  double sum = 0;
  for (size_t at = 0; at < valid; at += MPTL_THREADS) {
    size_t left = valid - at, n = left < MPTL_THREADS ? left : (size_t)MPTL_THREADS;
    __syncthreads();
    if (threadIdx.x < n) values[threadIdx.x] = (double)mptl_read_one(losses, at + threadIdx.x);
    __syncthreads();
    if (threadIdx.x != 0) continue;
    for (size_t i = 0; i < n; i++) sum += values[i];
  }
  if (threadIdx.x == 0) loss->sum = sum, loss->bad_label = ~loss->bad_label;
}

static __global__ void __launch_bounds__(ROW_THREADS)
    nll_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg dy, const int32_t *labels, size_t batch,
                        size_t classes) {
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < batch; r += row_step()) {
    size_t row = r * classes, label = (size_t)labels[r];
    float gradient = -mptl_read_one(dy, r);
    for (size_t i = mptl_lane() * MPTL_WIDE; i < classes; i += 32 * MPTL_WIDE) {
      float values[MPTL_WIDE];
#pragma unroll
      for (unsigned k = 0; k < MPTL_WIDE; k++) values[k] = i + k == label ? gradient : 0.0f;
      mptl_put_wide(dx, row + i, row + i, mptl_count_at(i, classes), values, &counts);
    }
  }
  mptl_add_counts(dx.stats, counts, batch * classes);
}

int mptl_cuda_nll_loss_forward(const mptl_sink *y, const mptl_source *x, const int32_t *labels, size_t batch, size_t classes,
                               size_t valid, mptl_loss *loss, mptl_cuda_stream stream) {
  if (y->accumulate) return MPTL_INVALID_VALUE;
  if (batch * classes == 0) return 0;
  mptl_source losses = {y->data, y->size, y->rounder};
  int status = mptl_clear_bytes(loss, sizeof *loss, stream);
  if (status != 0) return status;
  MPTL_LAUNCH(nll_forward_kernel, blocks_of(batch), ROW_THREADS, 0, stream)
  (mptl_sink_of(y, 0), mptl_source_of(x, classes), labels, batch, classes, valid, loss);
  MPTL_LAUNCH(nll_sum_kernel, 1, MPTL_THREADS, 0, stream)(mptl_source_of(&losses, 0), valid, loss);
  return mptl_launched();
}

int mptl_cuda_nll_loss_backward(const mptl_sink *dx, const mptl_source *dy, const int32_t *labels, size_t batch, size_t classes,
                                mptl_cuda_stream stream) {
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(nll_backward_kernel, blocks_of(batch), ROW_THREADS, 0, stream)
  (mptl_sink_of(dx, classes), mptl_source_of(dy, 0), labels, batch, classes);
  return mptl_launched();
}

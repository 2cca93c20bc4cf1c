/* log_softmax and the losses: a row of classes for each sample, a warp for each row. */
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
    softmax_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, size_t batch,
                           size_t classes, size_t floats) {
  MPTL_DYNAMIC_SHARED(float, shared);
  float *copy = copy_of(shared, floats, 1, 0);
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < batch; r += row_stride()) {
    size_t row = r * classes;
    copy_row(copy, x, row, classes);
    float max = element(copy, x, row, 0);
    double sum = 0;
    for (size_t i = mptl_lane(); i < classes; i += 32) {
      float value = element(copy, x, row, i);
      max = value > max ? value : max;
    }
    max = maximum_of_lanes(max);
    for (size_t i = mptl_lane(); i < classes; i += 32)
      sum += exp((double)element(copy, x, row, i) - (double)max);
    double shift = (double)max + log(sum_of_lanes(sum));
    for (size_t i = mptl_lane(); i < classes; i += 32)
      mptl_put(y, row + i, row + i, (float)((double)element(copy, x, row, i) - shift), &counts);
  }
  mptl_add_counts(y.stats, counts, batch * classes);
}

/* dx = dy - exp(y) sum(dy) */
static __global__ void __launch_bounds__(ROW_THREADS)
    softmax_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg y,
                            MPTL_PARAM mptl_source_arg dy, size_t batch, size_t classes,
                            size_t floats) {
  MPTL_DYNAMIC_SHARED(float, shared);
  float *y_copy = copy_of(shared, floats, 2, 0), *dy_copy = copy_of(shared, floats, 2, 1);
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < batch; r += row_stride()) {
    size_t row = r * classes;
    copy_row(y_copy, y, row, classes);
    copy_row(dy_copy, dy, row, classes);
    double sum = 0;
    for (size_t i = mptl_lane(); i < classes; i += 32) sum += (double)element(dy_copy, dy, row, i);
    sum = sum_of_lanes(sum);
    for (size_t i = mptl_lane(); i < classes; i += 32) {
      double d =
          (double)element(dy_copy, dy, row, i) - exp((double)element(y_copy, y, row, i)) * sum;
      mptl_put(dx, row + i, row + i, (float)d, &counts);
    }
  }
  mptl_add_counts(dx.stats, counts, batch * classes);
}

int mptl_cuda_log_softmax_forward(const mptl_sink *y, const mptl_source *x, size_t batch,
                                  size_t classes, mptl_cuda_stream stream) {
  size_t floats = copy_floats(classes);
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(softmax_forward_kernel, blocks_of(batch), ROW_THREADS,
              ROW_WARPS * floats * sizeof(float), stream)
  (mptl_sink_of(y, 0), mptl_source_of(x, classes), batch, classes, floats);
  return mptl_launched();
}

int mptl_cuda_log_softmax_backward(const mptl_sink *dx, const mptl_source *y, const mptl_source *dy,
                                   size_t batch, size_t classes, mptl_cuda_stream stream) {
  size_t floats = copy_floats(classes);
  if (batch * classes == 0) return 0;
  MPTL_LAUNCH(softmax_backward_kernel, blocks_of(batch), ROW_THREADS,
              ROW_WARPS * 2 * floats * sizeof(float), stream)
  (mptl_sink_of(dx, 0), mptl_source_of(y, classes), mptl_source_of(dy, classes), batch, classes,
   floats);
  return mptl_launched();
}

/* ---- Losses (kernels/losses.h) ---- */

template <int ID>
struct loss_of;
#define LOSS(name, NAME, reads_x, by_values)                                                 \
  template <>                                                                                \
  struct loss_of<MPTL_OP_##NAME> {                                                           \
    static __device__ __forceinline__ double term(float x, float t, size_t n) {              \
      return mptl_term_##name(x, t, n);                                                      \
    }                                                                                        \
    static __device__ __forceinline__ float gradient(float x, float t, float dy, size_t n) { \
      return mptl_gradient_##name(x, t, dy, n);                                              \
    }                                                                                        \
  };
MPTL_LOSSES(LOSS)
#undef LOSS

/* The place of the largest of the lanes' numbers, each given with its place; of equal numbers the
 * first place. All lanes get it. */
MPTL_DEVICE uint32_t place_of_maximum(float largest, uint32_t at) {
  for (unsigned d = 16; d > 0; d /= 2) {
    float other = __shfl_xor_sync(0xffffffffu, largest, d);
    uint32_t other_at = __shfl_xor_sync(0xffffffffu, at, d);
    if (other > largest || (other == largest && other_at < at)) largest = other, at = other_at;
  }
  return at;
}

/* The place of a row's largest element, in all lanes; of equal elements the first. A NaN counts as
 * the largest if it is the first element, and never otherwise. */
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
  return place_of_maximum(largest, at);
}

/* The same for a sample's targets. */
MPTL_DEVICE uint32_t find_target(const mptl_targets &t, size_t sample, size_t n) {
  if (t.labels != NULL) return (uint32_t)t.labels[sample];
  const float *row = t.values + sample * n;
  float largest = row[0];
  uint32_t at = 0;
  for (size_t i = mptl_lane(); i < n; i += 32)
    if (row[i] > largest) largest = row[i], at = (uint32_t)i;
  return place_of_maximum(largest, at);
}

MPTL_DEVICE bool has_label(const mptl_targets &t, size_t sample, size_t n) {
  return t.labels == NULL || (t.labels[sample] >= 0 && (size_t)t.labels[sample] < n);
}

/* Computes the samples' losses, a warp for each sample. *loss is all zeros before. bad_label
 * becomes the complement of the index of the first sample with a bad label, and stays 0 without
 * one; loss_sum_kernel takes the complement again. */
template <int ID>
static __global__ void __launch_bounds__(ROW_THREADS)
    loss_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x,
                        MPTL_PARAM mptl_targets targets, MPTL_PARAM mptl_loss_shape shape,
                        mptl_loss *loss) {
  mptl_counts counts = mptl_no_counts();
  int32_t correct = 0;
  for (size_t r = first_row(); r < shape.batch; r += row_stride()) {
    float value = 0;
    if (r < shape.valid && has_label(targets, r, shape.n)) {
      double sum = -0.0;
      for (size_t k = mptl_lane(); k < shape.n; k += 32)
        sum += loss_of<ID>::term(mptl_read_one(x, r * shape.n + k),
                                 mptl_target(&targets, &shape, r, k), shape.n);
      value = mptl_rounded_sum(sum_of_lanes(sum));
      if (shape.accuracy)
        correct += find_largest(x, r * shape.n, shape.n) == find_target(targets, r, shape.n);
    } else if (r < shape.valid) {
      value = __uint_as_float(MPTL_F32_INF | MPTL_F32_QUIET);
      if (mptl_lane() == 0) atomicMax((uint32_t *)&loss->bad_label, ~(uint32_t)r);
    }
    if (mptl_lane() == 0) mptl_put(y, r, r, value, &counts);
  }
  if (correct > 0 && mptl_lane() == 0) atomicAdd(&loss->correct, correct);
  mptl_add_counts(y.stats, counts, shape.batch);
}

/* Adds the losses in order, in one block: all threads read, and one adds. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    loss_sum_kernel(MPTL_PARAM mptl_source_arg losses, size_t valid, mptl_loss *loss) {
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

template <int ID>
static __global__ void __launch_bounds__(ROW_THREADS)
    loss_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg x,
                         MPTL_PARAM mptl_source_arg dy, MPTL_PARAM mptl_targets targets,
                         MPTL_PARAM mptl_loss_shape shape) {
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < shape.batch; r += row_stride()) {
    size_t row = r * shape.n;
    float gradient = mptl_read_one(dy, r);
    for (size_t i = mptl_lane() * MPTL_WIDE; i < shape.n; i += 32 * MPTL_WIDE) {
      unsigned n = mptl_count_at(i, shape.n);
      float values[MPTL_WIDE];
      if (x.as != MPTL_AS_NOTHING) mptl_read_wide(values, x, row + i, n);
#pragma unroll
      for (unsigned k = 0; k < MPTL_WIDE; k++) {
        float t = k < n ? mptl_target(&targets, &shape, r, i + k) : 0.0f;
        values[k] =
            loss_of<ID>::gradient(x.as != MPTL_AS_NOTHING ? values[k] : 0.0f, t, gradient, shape.n);
      }
      mptl_put_wide(dx, row + i, row + i, n, values, &counts);
    }
  }
  mptl_add_counts(dx.stats, counts, shape.batch * shape.n);
}

int mptl_cuda_loss_forward(mptl_op_id id, const mptl_sink *y, const mptl_source *x,
                           const mptl_targets *targets, const mptl_loss_shape *s, mptl_loss *loss,
                           mptl_cuda_stream stream) {
  if (y->accumulate) return MPTL_INVALID_VALUE;
  if (s->batch * s->n == 0) return 0;
  mptl_source losses = {y->data, y->size, y->rounder};
  int status = mptl_clear_bytes(loss, sizeof *loss, stream);
  if (status != 0) return status;
  switch (id) {
#define FORWARD(name, NAME, reads_x, by_values)                                                   \
  case MPTL_OP_##NAME:                                                                            \
    MPTL_LAUNCH(loss_forward_kernel<MPTL_OP_##NAME>, blocks_of(s->batch), ROW_THREADS, 0, stream) \
    (mptl_sink_of(y, 0), mptl_source_of(x, s->n), *targets, *s, loss);                            \
    break;
    MPTL_LOSSES(FORWARD)
#undef FORWARD
    default:
      return MPTL_INVALID_VALUE;
  }
  MPTL_LAUNCH(loss_sum_kernel, 1, MPTL_THREADS, 0, stream)
  (mptl_source_of(&losses, 0), s->valid, loss);
  return mptl_launched();
}

int mptl_cuda_loss_backward(mptl_op_id id, const mptl_sink *dx, const mptl_source *x,
                            const mptl_source *dy, const mptl_targets *targets,
                            const mptl_loss_shape *s, mptl_cuda_stream stream) {
  if (s->batch * s->n == 0) return 0;
  switch (id) {
#define BACKWARD(name, NAME, reads_x, by_values)                                                   \
  case MPTL_OP_##NAME:                                                                             \
    MPTL_LAUNCH(loss_backward_kernel<MPTL_OP_##NAME>, blocks_of(s->batch), ROW_THREADS, 0, stream) \
    (mptl_sink_of(dx, s->n), mptl_source_of(x, s->n), mptl_source_of(dy, 0), *targets, *s);        \
    break;
    MPTL_LOSSES(BACKWARD)
#undef BACKWARD
    default:
      return MPTL_INVALID_VALUE;
  }
  return mptl_launched();
}

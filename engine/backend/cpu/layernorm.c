/* layernorm: each row (the features of a sample, or the channels of a pixel) is normalised by its
 * own mean and (biased) variance.
 *
 * Row statistics and everything computed from them are in binary64; backward computes the row
 * statistics again. The order of sums depends on the shape alone and is the same in
 * kernels/cuda/layernorm.cu. Within a row, each of 32 lanes adds every 32nd element; then one half
 * of the lanes is added to the other until one is left. Gradients of parameters are added row by
 * row within a part, then part by part within a block, then block by block.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

enum { LANES = 32, MOST_BLOCKS = 128, BLOCK_PARTS = 8 };

static size_t rows(const mptl_call *call) {
  return mptl_batch_numel(call, call->op->out) / mptl_call_features(call);
}

/* ---- The statistics of a row ---- */

typedef struct statistics { /* of a row */
  double mean, inv_std;
} statistics;

static double normalised(float x, statistics s) { return ((double)x - s.mean) * s.inv_std; }

/* Adds the upper half of the lanes to the lower half until one number is left. */
static double sum_of_lanes(double *lanes) {
  for (size_t half = LANES / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

/* How many lanes have an element when lane 0 takes element `at` of n. */
static size_t turn(size_t at, size_t n) { return n - at < LANES ? n - at : LANES; }

static statistics statistics_of(const mptl_call *call, const float *x, size_t n) {
  double sums[LANES] = {0}, squares[LANES] = {0};
  for (size_t at = 0; at < n; at += LANES)
    for (size_t i = 0, width = turn(at, n); i < width; i++) sums[i] += (double)x[at + i];
  double mean = sum_of_lanes(sums) / (double)n;
  for (size_t at = 0; at < n; at += LANES)
    for (size_t i = 0, width = turn(at, n); i < width; i++) {
      double d = (double)x[at + i] - mean;
      squares[i] += d * d;
    }
  return (statistics){mean, 1.0 / sqrt(sum_of_lanes(squares) / (double)n + call->op->attr.eps)};
}

/* ---- Forward: with xhat = (x - mean) inv_std, y = xhat weight + bias ---- */

/* The buffer of a thread: a row of results, a row of inputs. */
static size_t forward_floats(const mptl_call *call) { return 2 * mptl_call_features(call); }

static void forward_row(const mptl_call *call, size_t row, float *buffer, mptl_round_stats *stats) {
  size_t n = mptl_call_features(call), at = row * n;
  const float *weight = call->theta[MPTL_NORM_WEIGHT], *bias = call->theta[MPTL_NORM_BIAS];
  const float *x = mptl_read(&call->in[0], at, n, buffer + n);
  float *y = mptl_results(&call->y, at, buffer);
  statistics s = statistics_of(call, x, n);
  for (size_t i = 0; i < n; i++) {
    double scaled = normalised(x[i], s) * (double)weight[i];
    y[i] = (float)(bias != NULL ? scaled + (double)bias[i] : scaled);
  }
  mptl_write(&call->y, at, n, y, stats);
}

static mptl_status forward(const mptl_call *call) {
  mptl_run_rows(call, rows(call), forward_floats(call), forward_row, &call->y, 1);
  return MPTL_OK;
}

/* ---- Backward ----
 *
 * With g = dy weight: dx = inv_std (g - mean of g - xhat mean of g xhat); dweight = sum of dy xhat,
 * dbias = sum of dy. */

/* The rows of a part; a block has BLOCK_PARTS parts. */
static size_t part_rows(const mptl_call *call) {
  const size_t most = (size_t)MOST_BLOCKS * BLOCK_PARTS;
  return (rows(call) + most - 1) / most;
}

static size_t blocks(const mptl_call *call) {
  size_t block_rows = part_rows(call) * BLOCK_PARTS;
  return (rows(call) + block_rows - 1) / block_rows;
}

/* The buffer of a thread: two sums for each feature, in binary64, of a part; a row of results, one
 * of inputs and one of gradients. */
static size_t backward_floats(const mptl_call *call) {
  return (2 * sizeof(double) / sizeof(float) + 3) * mptl_call_features(call);
}

/* The sums of a block, by feature: dy xhat, then dy. They are in the scratch memory behind the
 * threads' buffers. */
static double *block_sums(const mptl_call *call, size_t block) {
  char *first = (char *)call->scratch + mptl_rows_scratch_bytes(call, backward_floats(call));
  return (double *)first + block * 2 * mptl_call_features(call);
}

static size_t scratch_bytes(const mptl_call *call) {
  if (!call->train) return mptl_rows_scratch_bytes(call, forward_floats(call));
  return mptl_rows_scratch_bytes(call, backward_floats(call)) +
         blocks(call) * 2 * mptl_call_features(call) * sizeof(double);
}

static void add(double *to, const double *from, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] += from[i];
}

/* Computes and writes a row of dx. */
static void write_gradient(const mptl_call *call, size_t row, const float *x, const float *dy,
                           statistics s, float *buffer, mptl_round_stats *stats) {
  size_t n = mptl_call_features(call), at = row * n;
  const float *weight = call->theta[MPTL_NORM_WEIGHT];
  double sums[LANES] = {0}, products[LANES] = {0};
  for (size_t from = 0; from < n; from += LANES)
    for (size_t i = 0, width = turn(from, n); i < width; i++) {
      double g = (double)dy[from + i] * (double)weight[from + i];
      sums[i] += g;
      products[i] += g * normalised(x[from + i], s);
    }
  double mean = sum_of_lanes(sums) / (double)n, mean_product = sum_of_lanes(products) / (double)n;
  float *dx = mptl_results(&call->dx[0], at, buffer);
  for (size_t i = 0; i < n; i++) {
    double g = (double)dy[i] * (double)weight[i], xhat = normalised(x[i], s);
    dx[i] = (float)(s.inv_std * (g - mean - xhat * mean_product));
  }
  mptl_write(&call->dx[0], at, n, dx, stats);
}

/* Adds a row to the sums of a part, and writes its row of dx if that is wanted. */
static void backward_row(const mptl_call *call, size_t row, double *sums, float *buffer,
                         mptl_round_stats *stats) {
  size_t n = mptl_call_features(call), at = row * n;
  const float *x = mptl_read(&call->in[0], at, n, buffer + n),
              *dy = mptl_read(&call->dy, at, n, buffer + 2 * n);
  statistics s = statistics_of(call, x, n);
  for (size_t i = 0; i < n; i++) {
    sums[i] += (double)dy[i] * normalised(x[i], s);
    sums[n + i] += (double)dy[i];
  }
  if (mptl_wanted(&call->dx[0])) write_gradient(call, row, x, dy, s, buffer, stats);
}

static void backward_block(const mptl_call *call, size_t block, float *buffer,
                           mptl_round_stats *stats) {
  size_t n = mptl_call_features(call), count = part_rows(call),
         end = (block + 1) * BLOCK_PARTS * count;
  double *sums = block_sums(call, block), *part = (double *)buffer;
  if (end > rows(call)) end = rows(call);
  memset(sums, 0, 2 * n * sizeof *sums);
  for (size_t first = block * BLOCK_PARTS * count; first < end; first += count) {
    size_t behind = end - first < count ? end : first + count;
    memset(part, 0, 2 * n * sizeof *part);
    for (size_t row = first; row < behind; row++)
      backward_row(call, row, part, (float *)(part + 2 * n), stats);
    add(sums, part, 2 * n);
  }
}

static mptl_status backward(const mptl_call *call) {
  size_t n = mptl_call_features(call);
  float *dweight = call->dtheta[MPTL_NORM_WEIGHT], *dbias = call->dtheta[MPTL_NORM_BIAS];
  mptl_run_rows(call, blocks(call), backward_floats(call), backward_block, &call->dx[0], 1);
  if (call->ranging) return MPTL_OK;
  double *sums = block_sums(call, 0);
  for (size_t k = 1; k < blocks(call); k++) add(sums, block_sums(call, k), 2 * n);
  for (size_t i = 0; i < n; i++) dweight[i] = (float)sums[i];
  if (dbias == NULL) return MPTL_OK;
  for (size_t i = 0; i < n; i++) dbias[i] = (float)sums[n + i];
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_layernorm = {
    .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward};

/* Layer norms: each row of c elements is normalised by its own mean and (biased) variance. A warp
 * has a row.
 *
 * Row statistics and all that is computed from them are binary64; backward computes the statistics
 * again. The order of sums depends only on the shape, and engine/backend/cpu/layernorm.c has the
 * same order, so results have the same bits: within a row each lane adds every 32nd element;
 * gradients of parameters are added row by row within a part, part by part within a block of rows,
 * then block by block.
 */
#include <math.h>

#include "kernels/cuda/rows.h"

using namespace mptl_rows;

namespace {

enum { MOST_BLOCKS = 128, BLOCK_PARTS = 8 };
enum { TILE = MPTL_THREADS / BLOCK_PARTS }; /* channels that a block adds up */

struct statistics {
  double mean, inv_std;
};

/* A parameter of all kernels. */
struct layernorm {
  size_t rows, c;
  size_t floats; /* of a row's copy in shared memory; 0: rows are not copied */
  double eps;
  const float *weight, *bias;
};

/* ---- Rows ---- */

MPTL_DEVICE double normalised(float x, const statistics &s) {
  return ((double)x - s.mean) * s.inv_std;
}

/* The statistics of a row, the same in all lanes. */
MPTL_DEVICE statistics statistics_of(const float *copy, const mptl_source_arg &x, size_t row,
                                     const layernorm &norm) {
  double sum = 0, squares = 0;
  for (size_t i = mptl_lane(); i < norm.c; i += 32) sum += (double)element(copy, x, row, i);
  double mean = sum_of_lanes(sum) / (double)norm.c;
  for (size_t i = mptl_lane(); i < norm.c; i += 32) {
    double d = (double)element(copy, x, row, i) - mean;
    squares += d * d;
  }
  statistics s = {mean, 1.0 / sqrt(sum_of_lanes(squares) / (double)norm.c + norm.eps)};
  return s;
}

/* With xhat = (x - mean) inv_std: y = xhat weight + bias. */
__global__ void __launch_bounds__(ROW_THREADS)
    forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x,
                   MPTL_PARAM layernorm norm) {
  MPTL_DYNAMIC_SHARED(float, shared);
  float *copy = copy_of(shared, norm.floats, 1, 0);
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < norm.rows; r += row_stride()) {
    size_t row = r * norm.c;
    copy_row(copy, x, row, norm.c);
    statistics s = statistics_of(copy, x, row, norm);
    for (size_t i = mptl_lane() * MPTL_WIDE; i < norm.c; i += 32 * MPTL_WIDE) {
      unsigned n = mptl_count_at(i, norm.c);
      float values[MPTL_WIDE];
#pragma unroll
      for (unsigned k = 0; k < MPTL_WIDE; k++) {
        values[k] = 0.0f;
        if (k >= n) continue;
        double scaled = normalised(element(copy, x, row, i + k), s) * (double)norm.weight[i + k];
        values[k] = (float)(norm.bias != NULL ? scaled + (double)norm.bias[i + k] : scaled);
      }
      mptl_put_wide(y, row + i, row + i, n, values, &counts);
    }
  }
  mptl_add_counts(y.stats, counts, norm.rows * norm.c);
}

/* Writes the rows' statistics, and dx if it is wanted. With g = dy weight:
 * dx = inv_std (g - mean of g - xhat mean of g xhat). */
__global__ void __launch_bounds__(ROW_THREADS)
    backward_kernel(MPTL_PARAM mptl_sink_arg dx, bool wanted, MPTL_PARAM mptl_source_arg x,
                    MPTL_PARAM mptl_source_arg dy, MPTL_PARAM layernorm norm, statistics *found) {
  MPTL_DYNAMIC_SHARED(float, shared);
  float *x_copy = copy_of(shared, norm.floats, 2, 0), *dy_copy = copy_of(shared, norm.floats, 2, 1);
  mptl_counts counts = mptl_no_counts();
  for (size_t r = first_row(); r < norm.rows; r += row_stride()) {
    size_t row = r * norm.c;
    copy_row(x_copy, x, row, norm.c);
    statistics s = statistics_of(x_copy, x, row, norm);
    if (mptl_lane() == 0) found[r] = s;
    if (!wanted) continue;
    copy_row(dy_copy, dy, row, norm.c);
    double sum = 0, products = 0;
    for (size_t i = mptl_lane(); i < norm.c; i += 32) {
      double g = (double)element(dy_copy, dy, row, i) * (double)norm.weight[i];
      sum += g;
      products += g * normalised(element(x_copy, x, row, i), s);
    }
    double mean = sum_of_lanes(sum) / (double)norm.c,
           mean_product = sum_of_lanes(products) / (double)norm.c;
    for (size_t i = mptl_lane() * MPTL_WIDE; i < norm.c; i += 32 * MPTL_WIDE) {
      unsigned n = mptl_count_at(i, norm.c);
      float values[MPTL_WIDE];
#pragma unroll
      for (unsigned k = 0; k < MPTL_WIDE; k++) {
        values[k] = 0.0f;
        if (k >= n) continue;
        double g = (double)element(dy_copy, dy, row, i + k) * (double)norm.weight[i + k];
        double xhat = normalised(element(x_copy, x, row, i + k), s);
        values[k] = (float)(s.inv_std * (g - mean - xhat * mean_product));
      }
      mptl_put_wide(dx, row + i, row + i, n, values, &counts);
    }
  }
  if (wanted) mptl_add_counts(dx.stats, counts, norm.rows * norm.c);
}

/* ---- Gradients of the parameters: sums over rows ---- */

/* Rows of a part, and blocks of BLOCK_PARTS parts each. */
size_t part_rows(size_t rows) {
  const size_t most = (size_t)MOST_BLOCKS * BLOCK_PARTS;
  return (rows + most - 1) / most;
}

size_t row_blocks(size_t rows) {
  size_t block_rows = part_rows(rows) * BLOCK_PARTS;
  return (rows + block_rows - 1) / block_rows;
}

/* sums[block of rows][2][c]: sums of dy xhat, then of dy, by channel. A thread sums one part of one
 * channel, a CUDA block one block of rows of TILE channels. */
__global__ void __launch_bounds__(MPTL_THREADS)
    sums_kernel(double *sums, MPTL_PARAM mptl_source_arg x, MPTL_PARAM mptl_source_arg dy,
                MPTL_PARAM layernorm norm, size_t count, const statistics *found) {
  MPTL_SHARED(double, shared, [2][BLOCK_PARTS][TILE]);
  unsigned lane = threadIdx.x % TILE, part = threadIdx.x / TILE;
  size_t channel = (size_t)blockIdx.x * TILE + lane;
  size_t first = ((size_t)blockIdx.y * BLOCK_PARTS + part) * count, end = first + count;
  if (end > norm.rows) end = norm.rows;
  if (channel >= norm.c) end = first;
  double product = 0, sum = 0;
#pragma unroll 4
  for (size_t r = first; r < end; r++) {
    double d = (double)mptl_read_one(dy, r * norm.c + channel);
    product += d * normalised(mptl_read_one(x, r * norm.c + channel), found[r]);
    sum += d;
  }
  shared[0][part][lane] = product;
  shared[1][part][lane] = sum;
  __syncthreads();
  if (part >= 2 || channel >= norm.c) return;
  double total = 0;
  for (unsigned k = 0; k < BLOCK_PARTS; k++) total += shared[part][k][lane];
  sums[((size_t)blockIdx.y * 2 + part) * norm.c + channel] = total;
}

__global__ void __launch_bounds__(MPTL_THREADS)
    finish_kernel(float *dweight, float *dbias, const double *sums, size_t blocks, size_t c) {
  for (size_t i = mptl_first_element(); i < c; i += mptl_element_stride()) {
    double product = 0, sum = 0;
    for (size_t k = 0; k < blocks; k++) {
      product += sums[k * 2 * c + i];
      sum += sums[(k * 2 + 1) * c + i];
    }
    dweight[i] = (float)product;
    if (dbias != NULL) dbias[i] = (float)sum;
  }
}

layernorm describe(const mptl_cuda_layernorm *n) {
  return {n->rows, n->c, copy_floats(n->c), n->eps, n->weight, n->bias};
}

}  // namespace

int mptl_cuda_layernorm_forward(const mptl_sink *y, const mptl_source *x,
                                const mptl_cuda_layernorm *n, mptl_cuda_stream stream) {
  if (n->rows * n->c == 0) return 0;
  layernorm norm = describe(n);
  MPTL_LAUNCH(forward_kernel, blocks_of(norm.rows), ROW_THREADS,
              ROW_WARPS * norm.floats * sizeof(float), stream)
  (mptl_sink_of(y, norm.c), mptl_source_of(x, norm.c), norm);
  return mptl_launched();
}

size_t mptl_cuda_layernorm_scratch(size_t rows, size_t c) {
  return rows * sizeof(statistics) + row_blocks(rows) * 2 * c * sizeof(double);
}

int mptl_cuda_layernorm_backward(const mptl_sink *dx, const mptl_source *x, const mptl_source *dy,
                                 const mptl_cuda_layernorm *n, void *scratch,
                                 mptl_cuda_stream stream) {
  if (n->rows * n->c == 0) return 0;
  layernorm norm = describe(n);
  statistics *found = (statistics *)scratch;
  double *sums = (double *)(found + norm.rows);
  mptl_source_arg x_arg = mptl_source_of(x, norm.c), dy_arg = mptl_source_of(dy, norm.c);
  MPTL_LAUNCH(backward_kernel, blocks_of(norm.rows), ROW_THREADS,
              ROW_WARPS * 2 * norm.floats * sizeof(float), stream)
  (mptl_sink_of(dx, norm.c), dx->wanted, x_arg, dy_arg, norm, found);
  if (n->dweight == NULL) return mptl_launched();
  unsigned blocks = (unsigned)row_blocks(norm.rows), tiles = (unsigned)((norm.c + TILE - 1) / TILE);
  MPTL_LAUNCH(sums_kernel, dim3(tiles, blocks), MPTL_THREADS, 0, stream)
  (sums, x_arg, dy_arg, norm, part_rows(norm.rows), found);
  MPTL_LAUNCH(finish_kernel, mptl_blocks(norm.c), MPTL_THREADS, 0, stream)
  (n->dweight, n->dbias, sums, (size_t)blocks, norm.c);
  return mptl_launched();
}

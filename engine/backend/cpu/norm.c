/* batchnorm2d over NHWC: statistics per channel in one pass, normalisation and rounding in another; the same backward.
 *
 * Training: mean and (biased) variance of the rounded input over batch, height and width; running statistics move by `momentum` towards
 * them (the variance unbiased), as in PyTorch. Sums run over fixed blocks of rows, in binary32 within a block's 64 rows and in binary64 above
 * that, around the first pixel's values, so that they do not depend on the number of threads and a large mean costs no accuracy.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

enum { BLOCKS = 64, ROWS = 64 }; /* blocks of the array, rows summed in binary32 */

static size_t channels(const mptl_call *call) { return (size_t)mptl_input_shape(call->graph, call->op, 0).c; }
static size_t rows(const mptl_call *call) { return mptl_batch_numel(call, call->op->out) / channels(call); }

/* Saved: mean[c], inverse standard deviation[c]. */
static size_t saved_floats(const mptl_call *call) { return 2 * channels(call); }

/* Scratch: two binary64 sums by block and channel, then binary32 vectors by channel: three coefficients, two partial sums a block. */
static size_t sums_bytes(const mptl_call *call) { return BLOCKS * 2 * channels(call) * sizeof(double); }
static size_t scratch_bytes(const mptl_call *call) {
  return sums_bytes(call) + (3 + 2 * BLOCKS) * channels(call) * sizeof(float);
}

/* vector(call, k): the k-th vector of c floats in scratch. */
static float *vector(const mptl_call *call, size_t k) {
  return (float *)((char *)call->scratch + sums_bytes(call)) + k * channels(call);
}

/* Adds the sums over rows [row, row + n) to a pair of binary32 vectors. */
typedef void (*partial_fn)(const mptl_call *call, float *sum1, float *sum2, size_t row, size_t n);

static void sum_moments(const mptl_call *call, float *sum1, float *sum2, size_t row, size_t n) {
  const float *x = call->in[0].data;
  mptl_layers()->moments(sum1, sum2, x + row * channels(call), x, n, channels(call));
}

static void sum_backward(const mptl_call *call, float *sum1, float *sum2, size_t row, size_t n) {
  size_t at = row * channels(call);
  mptl_layers()->backward_sums(sum1, sum2, call->dy.data + at, call->in[0].data + at, call->saved, n, channels(call));
}

/* Two sums by channel over all rows, left in the first block's place: sums[0..c), sums[c..2c). */
static const double *reduce(const mptl_call *call, partial_fn fn) {
  size_t c = channels(call), total = rows(call), per_block = (total + BLOCKS - 1) / BLOCKS;
  double *sums = call->scratch;
#pragma omp parallel for schedule(static)
  for (size_t b = 0; b < BLOCKS; b++) {
    double *s = sums + b * 2 * c;
    float *partial = vector(call, 3 + 2 * b);
    size_t end = (b + 1) * per_block < total ? (b + 1) * per_block : total;
    memset(s, 0, 2 * c * sizeof *s);
    for (size_t row = b * per_block; row < end; row += ROWS) {
      memset(partial, 0, 2 * c * sizeof *partial);
      fn(call, partial, partial + c, row, end - row < ROWS ? end - row : ROWS);
      for (size_t i = 0; i < 2 * c; i++) s[i] += (double)partial[i];
    }
  }
  for (size_t b = 1; b < BLOCKS; b++)
    for (size_t i = 0; i < 2 * c; i++) sums[i] += sums[b * 2 * c + i];
  return sums;
}

/* A piece of a tile for the row kernels: `rows` pixels of `width` channels from `channel` on. Pieces are whole pixels, but for the ends
 * of a tile that begins or ends inside a pixel. */
typedef struct piece {
  size_t at, channel, rows, width;
} piece;

/* Steps to the tile's next piece of c-channel pixels; false at the end. A zeroed piece is in front of the first. */
static bool next_piece(piece *p, const mptl_tile *tile, size_t c) {
  p->at += p->rows * p->width;
  size_t left = tile->n - p->at;
  p->channel = (tile->offset + p->at) % c;
  bool whole = p->channel == 0 && left >= c;
  p->rows = whole ? left / c : 1;
  p->width = whole ? c : left < c - p->channel ? left : c - p->channel;
  return left > 0;
}

static void forward_tile(const mptl_call *call, mptl_tile *tile) {
  size_t c = channels(call);
  float *y = mptl_tile_begin(&call->y, tile);
  const float *x = call->in[0].data + tile->offset;
  for (piece p = {0}; next_piece(&p, tile, c);)
    mptl_layers()->normalize(y + p.at, x + p.at, vector(call, 0) + p.channel, vector(call, 1) + p.channel, p.rows, p.width);
  mptl_tile_end(&call->y, tile, y, 0);
}

static mptl_status forward(mptl_call *call) {
  size_t c = channels(call), n = rows(call);
  float *mean = call->saved, *inv_std = call->saved + c, *running_mean = call->buffers[2], *running_var = call->buffers[3];
  double eps = call->op->attr.eps, momentum = call->op->attr.momentum;
  if (call->train && n < 2)
    return mptl_fail(MPTL_EINVAL, "batch normalisation of one value per channel: needs a larger batch or image");
  if (call->train) {
    const double *sums = reduce(call, sum_moments);
    for (size_t i = 0; i < c; i++) {
      double m = sums[i] / (double)n, var = fmax(sums[c + i] / (double)n - m * m, 0.0),
             unbiased = var * (double)n / (double)(n - 1);
      mean[i] = (float)((double)call->in[0].data[i] + m);
      inv_std[i] = (float)(1.0 / sqrt(var + eps));
      running_mean[i] = (float)((1.0 - momentum) * (double)running_mean[i] + momentum * (double)mean[i]);
      running_var[i] = (float)((1.0 - momentum) * (double)running_var[i] + momentum * unbiased);
    }
  } else {
    for (size_t i = 0; i < c; i++) {
      mean[i] = running_mean[i];
      inv_std[i] = (float)(1.0 / sqrt((double)running_var[i] + eps));
    }
  }
  for (size_t i = 0; i < c; i++) {
    float scale = inv_std[i] * call->theta[0][i];
    vector(call, 0)[i] = scale;
    vector(call, 1)[i] = call->theta[1][i] - mean[i] * scale;
  }
  mptl_run_tiles(call, n * c, c < MPTL_TILE ? c : 1, forward_tile, &call->y, 1);
  return MPTL_OK;
}

static void backward_tile(const mptl_call *call, mptl_tile *tile) {
  size_t c = channels(call);
  float *dx = mptl_tile_begin(&call->dx[0], tile);
  const float *x = call->in[0].data + tile->offset, *dy = call->dy.data + tile->offset;
  for (piece p = {0}; next_piece(&p, tile, c);)
    mptl_layers()->normalize_backward(dx + p.at, dy + p.at, x + p.at, call->saved + p.channel, vector(call, 0) + p.channel,
                                      vector(call, 1) + p.channel, vector(call, 2) + p.channel, p.rows, p.width);
  mptl_tile_end(&call->dx[0], tile, dx, 0);
}

/* With xhat = (x - mean) inv_std: dgamma = sum dy xhat, dbeta = sum dy, dx = gamma inv_std (dy - dbeta / n - xhat dgamma / n). */
static mptl_status backward(mptl_call *call) {
  size_t c = channels(call), n = rows(call);
  const float *inv_std = call->saved + c;
  const double *sums = reduce(call, sum_backward);
  for (size_t i = 0; i < c; i++) {
    double sum_dy = sums[i], sum_dyx = sums[c + i], inv = (double)inv_std[i];
    call->dtheta[0][i] = (float)(sum_dyx * inv);
    call->dtheta[1][i] = (float)sum_dy;
    vector(call, 0)[i] = (float)(sum_dy / (double)n);
    vector(call, 1)[i] = (float)(sum_dyx * inv * inv / (double)n);
    vector(call, 2)[i] = inv_std[i] * call->theta[0][i];
  }
  if (call->dx[0].data != NULL) mptl_run_tiles(call, n * c, c < MPTL_TILE ? c : 1, backward_tile, call->dx, 1);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_batchnorm2d = {.kind = "batchnorm2d",
                                          .saved_floats = saved_floats,
                                          .scratch_bytes = scratch_bytes,
                                          .forward = forward,
                                          .backward = backward};

/* batchnorm2d over NHWC: sums by channel, then a function of each element; backward likewise.
 *
 * saved holds the mean, then the inverse standard deviation of each channel.
 *
 * In training: mean and (biased) variance of the rounded input over batch, height and width. The
 * running statistics move towards them, the variance unbiased, by the share `momentum`, as in
 * PyTorch. Before summing, the values of the first pixel are subtracted, so that a large mean costs
 * no accuracy.
 */
#include <math.h>

#include "backend/cpu/cpu.h"
#include "kernels/cpu/norm.h"

static size_t channels(const mptl_call *call) { return (size_t)mptl_call_input(call, 0).c; }
static size_t rows(const mptl_call *call) {
  return mptl_batch_numel(call, call->op->out) / channels(call);
}

/* The scratch memory: vectors by channel. y = x * scale + term; forward sums around centre;
 * backward subtracts mean_dy, and slope times the distance from the mean of x. */
enum { SCALE, TERM, CENTRE, MEAN_DY = CENTRE, SLOPE, VECTORS };
static size_t scratch_bytes(const mptl_call *call) {
  return VECTORS * channels(call) * sizeof(float);
}
static float *vector(const mptl_call *call, size_t k) {
  return (float *)call->scratch + k * channels(call);
}

/* A piece of a tile, for kernels that take whole rows: `rows` pixels of `width` channels, the first
 * channel being `channel`. A piece has whole pixels, except at the ends of a tile that begins or
 * ends inside a pixel. */
typedef struct piece {
  size_t at, channel, rows, width;
} piece;

/* Moves p to the next piece of a tile of c-channel pixels; false at the end. Before the first piece
 * p is zero. */
static bool next_piece(piece *p, const mptl_tile *tile, size_t c) {
  p->at += p->rows * p->width;
  size_t left = tile->n - p->at;
  p->channel = (tile->offset + p->at) % c;
  bool whole = p->channel == 0 && left >= c;
  p->rows = whole ? left / c : 1;
  p->width = whole ? c : left < c - p->channel ? left : c - p->channel;
  return left > 0;
}

/* Elements of a tile from `at` on: codes, if the tile has them. */
static mptl_pixels pixels(const float *values, const mptl_code_tile *codes, size_t at) {
  if (codes->codes == NULL) return (mptl_pixels){values + at, NULL};
  return (mptl_pixels){(const uint8_t *)codes->codes + at, codes->rounder};
}
static mptl_pixels x_of(const mptl_tile *tile, size_t at) {
  return pixels(tile->x[0], &tile->x_codes, at);
}
static mptl_pixels dy_of(const mptl_tile *tile, size_t at) {
  return pixels(tile->dy, &tile->dy_codes, at);
}

static bool reads_codes(const mptl_code_tile *codes, size_t n) {
  return mptl_norm()->reads(codes->codes, n, codes->rounder);
}

/* Sums around the values of the first pixel. */
static void forward_sums(const mptl_call *call, const mptl_tile *tile, float *sums) {
  size_t c = channels(call);
  for (piece p = {0}; next_piece(&p, tile, c);)
    mptl_norm()->moments(sums + p.channel, sums + c + p.channel, x_of(tile, p.at),
                         vector(call, CENTRE) + p.channel, p.rows, p.width);
}

static mptl_status forward_before_sums(const mptl_call *call) {
  size_t c = channels(call);
  const float *first = mptl_read(&call->in[0], 0, c, vector(call, CENTRE));
  for (size_t i = 0; i < c; i++) vector(call, CENTRE)[i] = first[i];
  return MPTL_OK;
}

/* Sets scale and term, from what is saved. */
static void set_line(const mptl_call *call) {
  size_t c = channels(call);
  const float *mean = call->saved, *inv_std = call->saved + c;
  for (size_t i = 0; i < c; i++) {
    float scale = inv_std[i] * call->theta[MPTL_NORM_WEIGHT][i];
    vector(call, SCALE)[i] = scale;
    vector(call, TERM)[i] = call->theta[MPTL_NORM_BIAS][i] - mean[i] * scale;
  }
}

static mptl_status forward_begin(const mptl_call *call, const double *sums) {
  size_t c = channels(call), n = rows(call);
  float *mean = call->saved, *inv_std = call->saved + c,
        *running_mean = call->buffers[MPTL_NORM_MEAN], *running_var = call->buffers[MPTL_NORM_VAR];
  double eps = call->op->attr.eps, momentum = call->op->attr.momentum;
  for (size_t i = 0; i < c; i++) {
    if (sums == NULL) {
      mean[i] = running_mean[i];
      inv_std[i] = (float)(1.0 / sqrt((double)running_var[i] + eps));
      continue;
    }
    double m = sums[i] / (double)n, var = fmax(sums[c + i] / (double)n - m * m, 0.0),
           unbiased = var * (double)n / (double)(n - 1);
    mean[i] = (float)((double)vector(call, CENTRE)[i] + m);
    inv_std[i] = (float)(1.0 / sqrt(var + eps));
    if (call->ranging) continue;
    running_mean[i] =
        (float)((1.0 - momentum) * (double)running_mean[i] + momentum * (double)mean[i]);
    running_var[i] = (float)((1.0 - momentum) * (double)running_var[i] + momentum * unbiased);
  }
  set_line(call);
  return MPTL_OK;
}

static void forward(const mptl_call *call, const mptl_tile *tile) {
  for (piece p = {0}; next_piece(&p, tile, channels(call));)
    mptl_norm()->normalize(tile->y + p.at, x_of(tile, p.at), vector(call, SCALE) + p.channel,
                           vector(call, TERM) + p.channel, p.rows, p.width);
}

static void backward_sums(const mptl_call *call, const mptl_tile *tile, float *sums) {
  size_t c = channels(call);
  for (piece p = {0}; next_piece(&p, tile, c);)
    mptl_norm()->backward_sums(sums + p.channel, sums + c + p.channel, dy_of(tile, p.at),
                               x_of(tile, p.at), call->saved + p.channel, p.rows, p.width);
}

/* With xhat = (x - mean) inv_std:
 *   dgamma = sum dy xhat, dbeta = sum dy, dx = gamma inv_std (dy - dbeta / n - xhat dgamma / n). */
static mptl_status backward_begin(const mptl_call *call, const double *sums) {
  size_t c = channels(call), n = rows(call);
  const float *inv_std = call->saved + c;
  for (size_t i = 0; i < c; i++) {
    double sum_dy = sums[i], sum_dyx = sums[c + i], inv = (double)inv_std[i];
    call->dtheta[MPTL_NORM_WEIGHT][i] = (float)(sum_dyx * inv);
    call->dtheta[MPTL_NORM_BIAS][i] = (float)sum_dy;
    vector(call, MEAN_DY)[i] = (float)(sum_dy / (double)n);
    vector(call, SLOPE)[i] = (float)(sum_dyx * inv * inv / (double)n);
  }
  return MPTL_OK;
}

static void backward(const mptl_call *call, const mptl_tile *tile) {
  for (piece p = {0}; next_piece(&p, tile, channels(call));)
    mptl_norm()->normalize_backward(tile->dx[0] + p.at, dy_of(tile, p.at), x_of(tile, p.at),
                                    call->saved + p.channel, vector(call, MEAN_DY) + p.channel,
                                    vector(call, SLOPE) + p.channel,
                                    vector(call, SCALE) + p.channel, p.rows, p.width);
}

static const mptl_pointwise batchnorm2d = {.forward = forward,
                                           .backward = backward,
                                           .reads_codes = reads_codes,
                                           .forward_before_sums = forward_before_sums,
                                           .forward_sums = forward_sums,
                                           .backward_sums = backward_sums,
                                           .forward_begin = forward_begin,
                                           .backward_begin = backward_begin,
                                           .forward_again = set_line};

const mptl_cpu_op mptl_cpu_batchnorm2d = {.scratch_bytes = scratch_bytes,
                                          .pointwise = &batchnorm2d};

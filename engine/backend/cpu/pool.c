/* avgpool over NHWC; a tile is a row of output pixels forward, a row of input pixels backward. */
#include <string.h>

#include "backend/cpu/cpu.h"

typedef struct geometry {
  size_t c, ih, iw, oh, ow, kh, kw, sh, sw;
} geometry;

static geometry geometry_of(const mptl_call *call) {
  mptl_shape in = mptl_input_shape(call->graph, call->op, 0), out = call->graph->values[call->op->out].shape;
  const mptl_attributes *a = &call->op->attr;
  return (geometry){.c = (size_t)in.c,
                    .ih = (size_t)in.h,
                    .iw = (size_t)in.w,
                    .oh = (size_t)out.h,
                    .ow = (size_t)out.w,
                    .kh = (size_t)a->kernel[0],
                    .kw = (size_t)a->kernel[1],
                    .sh = (size_t)a->stride[0],
                    .sw = (size_t)a->stride[1]};
}

/* Rows beyond a tile are computed in scratch, one row a thread (see mptl_run_tiles). */
static size_t scratch_bytes(const mptl_call *call) {
  geometry g = geometry_of(call);
  size_t row = g.iw > g.ow ? g.iw * g.c : g.ow * g.c;
  return row > MPTL_TILE ? row * mptl_thread_limit() * sizeof(float) : 0;
}

static void forward_tile(const mptl_call *call, mptl_tile *tile) {
  geometry g = geometry_of(call);
  float *y = mptl_tile_begin(&call->y, tile), factor = 1.0f / (float)(g.kh * g.kw);
  size_t row = g.ow * g.c;
  memset(y, 0, tile->n * sizeof *y);
  for (size_t r = 0; r < tile->n / row; r++) {
    size_t at = tile->offset / row + r, image = at / g.oh, oh = at % g.oh;
    for (size_t i = 0; i < g.kh; i++) {
      const float *x = call->in[0].data + (image * g.ih + oh * g.sh + i) * g.iw * g.c;
      for (size_t ow = 0; ow < g.ow; ow++)
        for (size_t j = 0; j < g.kw; j++) mptl_layers()->accumulate(y + r * row + ow * g.c, x + (ow * g.sw + j) * g.c, g.c);
    }
  }
  for (size_t i = 0; i < tile->n; i++) y[i] *= factor;
  mptl_tile_end(&call->y, tile, y, 0);
}

static mptl_status forward(mptl_call *call) {
  geometry g = geometry_of(call);
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), g.ow * g.c, forward_tile, &call->y, 1);
  return MPTL_OK;
}

static void backward_tile(const mptl_call *call, mptl_tile *tile) {
  geometry g = geometry_of(call);
  float *dx = mptl_tile_begin(&call->dx[0], tile), factor = 1.0f / (float)(g.kh * g.kw);
  size_t row = g.iw * g.c;
  memset(dx, 0, tile->n * sizeof *dx);
  for (size_t r = 0; r < tile->n / row; r++) {
    size_t at = tile->offset / row + r, image = at / g.ih, ih = at % g.ih;
    for (size_t oh = ih < g.kh ? 0 : (ih - g.kh) / g.sh + 1; oh < g.oh && oh * g.sh <= ih; oh++) {
      const float *dy = call->dy.data + (image * g.oh + oh) * g.ow * g.c;
      for (size_t ow = 0; ow < g.ow; ow++)
        for (size_t j = 0; j < g.kw; j++) mptl_layers()->axpy(dx + r * row + (ow * g.sw + j) * g.c, dy + ow * g.c, factor, g.c);
    }
  }
  mptl_tile_end(&call->dx[0], tile, dx, 0);
}

static mptl_status backward(mptl_call *call) {
  geometry g = geometry_of(call);
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->in[0]), g.iw * g.c, backward_tile, call->dx, 1);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_avgpool = {
    .kind = "avgpool", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward};

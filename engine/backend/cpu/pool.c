/* avgpool over NHWC, by rows of output pixels forward and of input pixels backward. */
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

/* A row of results and one of operands. */
static size_t row_floats(const mptl_call *call) {
  geometry g = geometry_of(call);
  return (g.iw + g.ow) * g.c;
}

static size_t scratch_bytes(const mptl_call *call) { return mptl_rows_scratch_bytes(row_floats(call)); }

static void forward_row(const mptl_call *call, size_t at, float *buffer, mptl_round_stats *stats) {
  geometry g = geometry_of(call);
  size_t row = g.ow * g.c, image = at / g.oh, oh = at % g.oh;
  float *y = mptl_results(&call->y, at * row, buffer), factor = 1.0f / (float)(g.kh * g.kw);
  memset(y, 0, row * sizeof *y);
  for (size_t i = 0; i < g.kh; i++) {
    const float *x = mptl_read(&call->in[0], (image * g.ih + oh * g.sh + i) * g.iw * g.c, g.iw * g.c, buffer + row);
    for (size_t ow = 0; ow < g.ow; ow++)
      for (size_t j = 0; j < g.kw; j++) mptl_layers()->accumulate(y + ow * g.c, x + (ow * g.sw + j) * g.c, g.c);
  }
  for (size_t i = 0; i < row; i++) y[i] *= factor;
  mptl_write(&call->y, at * row, row, y, stats);
}

static mptl_status forward(mptl_call *call) {
  geometry g = geometry_of(call);
  mptl_run_rows(call, (size_t)call->batch * g.oh, row_floats(call), forward_row, &call->y);
  return MPTL_OK;
}

static void backward_row(const mptl_call *call, size_t at, float *buffer, mptl_round_stats *stats) {
  geometry g = geometry_of(call);
  size_t row = g.iw * g.c, image = at / g.ih, ih = at % g.ih;
  float *dx = mptl_results(&call->dx[0], at * row, buffer), factor = 1.0f / (float)(g.kh * g.kw);
  memset(dx, 0, row * sizeof *dx);
  for (size_t oh = ih < g.kh ? 0 : (ih - g.kh) / g.sh + 1; oh < g.oh && oh * g.sh <= ih; oh++) {
    const float *dy = mptl_read(&call->dy, (image * g.oh + oh) * g.ow * g.c, g.ow * g.c, buffer + row);
    for (size_t ow = 0; ow < g.ow; ow++)
      for (size_t j = 0; j < g.kw; j++) mptl_layers()->axpy(dx + (ow * g.sw + j) * g.c, dy + ow * g.c, factor, g.c);
  }
  mptl_write(&call->dx[0], at * row, row, dx, stats);
}

static mptl_status backward(mptl_call *call) {
  geometry g = geometry_of(call);
  if (mptl_wanted(&call->dx[0])) mptl_run_rows(call, (size_t)call->batch * g.ih, row_floats(call), backward_row, &call->dx[0]);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_avgpool = {
    .kind = "avgpool", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward};

/* avgpool, mean (an avgpool with one window) and maxpool over NHWC: forward by rows of the output,
 * backward by rows of the input. */
#include <math.h>
#include <string.h>

#include "backend/call_shapes.h"
#include "backend/cpu/cpu.h"

/* ---- Averages ---- */

/* The buffer of a thread: a row of the input and a row of the output, or their gradients. */
static size_t row_floats(const mptl_call *call) {
  mptl_pool g = mptl_call_pool(call);
  return (g.iw + g.ow) * g.c;
}

static size_t scratch_bytes(const mptl_call *call) {
  return mptl_rows_scratch_bytes(call, row_floats(call));
}

/* The factor of an average: 1 / number of elements that count in the window. */
static float weight(const mptl_pool *g, size_t oh, size_t ow) {
  if (!g->without_padding) return 1.0f / (float)(g->kh * g->kw);
  return 1.0f / (float)(mptl_pool_inside(oh * g->sh, g->kh, g->ph, g->ih) *
                        mptl_pool_inside(ow * g->sw, g->kw, g->pw, g->iw));
}

/* The column of the input at column j of a window; false if it is padding. */
static bool column(size_t *iw, const mptl_pool *g, size_t ow, size_t j) {
  *iw = ow * g->sw + j - g->pw; /* wraps to a huge number left of column 0 */
  return *iw < g->iw;
}

static void forward_row(const mptl_call *call, size_t at, float *buffer, mptl_round_stats *stats) {
  mptl_pool g = mptl_call_pool(call);
  size_t row = g.ow * g.c, image = at / g.oh, oh = at % g.oh, iw;
  float *y = mptl_results(&call->y, at * row, buffer);
  memset(y, 0, row * sizeof *y);
  for (size_t i = 0; i < g.kh; i++) {
    size_t ih = oh * g.sh + i - g.ph;
    if (ih >= g.ih) continue;
    const float *x =
        mptl_read(&call->in[0], (image * g.ih + ih) * g.iw * g.c, g.iw * g.c, buffer + row);
    for (size_t ow = 0; ow < g.ow; ow++)
      for (size_t j = 0; j < g.kw; j++)
        if (column(&iw, &g, ow, j)) mptl_layers()->accumulate(y + ow * g.c, x + iw * g.c, g.c);
  }
  for (size_t ow = 0; ow < g.ow; ow++) {
    float factor = weight(&g, oh, ow);
    for (size_t i = ow * g.c; i < (ow + 1) * g.c; i++) y[i] *= factor;
  }
  mptl_write(&call->y, at * row, row, y, stats);
}

static mptl_status forward(const mptl_call *call) {
  mptl_pool g = mptl_call_pool(call);
  mptl_run_rows(call, (size_t)call->batch * g.oh, row_floats(call), forward_row, &call->y, 1);
  return MPTL_OK;
}

static void backward_row(const mptl_call *call, size_t at, float *buffer, mptl_round_stats *stats) {
  mptl_pool g = mptl_call_pool(call);
  size_t row = g.iw * g.c, image = at / g.ih, ih = at % g.ih + g.ph /* padding included */, iw;
  float *dx = mptl_results(&call->dx[0], at * row, buffer);
  memset(dx, 0, row * sizeof *dx);
  for (size_t oh = ih < g.kh ? 0 : (ih - g.kh) / g.sh + 1; oh < g.oh && oh * g.sh <= ih; oh++) {
    const float *dy =
        mptl_read(&call->dy, (image * g.oh + oh) * g.ow * g.c, g.ow * g.c, buffer + row);
    for (size_t ow = 0; ow < g.ow; ow++)
      for (size_t j = 0; j < g.kw; j++)
        if (column(&iw, &g, ow, j))
          mptl_layers()->axpy(dx + iw * g.c, dy + ow * g.c, weight(&g, oh, ow), g.c);
  }
  mptl_write(&call->dx[0], at * row, row, dx, stats);
}

static mptl_status backward(const mptl_call *call) {
  mptl_pool g = mptl_call_pool(call);
  if (mptl_wanted(&call->dx[0]))
    mptl_run_rows(call, (size_t)call->batch * g.ih, row_floats(call), backward_row, &call->dx[0],
                  1);
  return MPTL_OK;
}

/* ---- Maxima ---- */

/* The rows of a band: backward works on bands of sh input rows, the distance between two
 * windows. */
static size_t band_rows(const mptl_pool *g) { return g->sh < g->ih ? g->sh : g->ih; }

/* The buffer of a thread: a band of the input's gradient, a row of the input, and for a row of the
 * output maxima, places and gradients. */
static size_t max_floats(const mptl_call *call) {
  mptl_pool g = mptl_call_pool(call);
  return ((band_rows(&g) + 1) * g.iw + 3 * g.ow) * g.c;
}

static size_t max_scratch_bytes(const mptl_call *call) {
  return mptl_rows_scratch_bytes(call, max_floats(call));
}

/* Windows [from, from + n) of a row have a column j inside the image, the first one `column`. */
typedef struct windows {
  size_t from, n, column;
} windows;

static windows windows_inside(const mptl_pool *g, size_t j) {
  const size_t from = j < g->pw ? (g->pw - j + g->sw - 1) / g->sw : 0,
               end = g->iw + g->pw > j ? (g->iw + g->pw - j - 1) / g->sw + 1 : 0;
  windows in = {.from = from, .n = end < g->ow ? end : g->ow};
  in.n = in.n > from ? in.n - from : 0;
  if (in.n > 0) in.column = from * g->sw + j - g->pw;
  return in;
}

/* Finds the maxima of a row of windows, and their places: row in the window times kw plus column.
 * Of equal values the first counts, as in PyTorch. Padding is left out. x is a buffer for a row of
 * the input. */
static void find_maxima(const mptl_call *call, const mptl_pool *g, size_t image, size_t oh,
                        float *best, int32_t *place, float *x) {
  size_t top = oh * g->sh < g->ph ? g->ph - oh * g->sh
                                  : 0; /* the first row of the windows inside the image */
  for (size_t ow = 0; ow < g->ow; ow++) {
    size_t left = ow * g->sw < g->pw ? g->pw - ow * g->sw : 0;
    for (size_t i = ow * g->c; i < (ow + 1) * g->c; i++) {
      best[i] = -INFINITY;
      place[i] = (int32_t)(top * g->kw + left);
    }
  }
  for (size_t i = top; i < g->kh && oh * g->sh + i < g->ih + g->ph; i++) {
    const float *row = mptl_read(
        &call->in[0], (image * g->ih + oh * g->sh + i - g->ph) * g->iw * g->c, g->iw * g->c, x);
    for (size_t j = 0; j < g->kw; j++) {
      const windows in = windows_inside(g, j);
      mptl_layers()->larger(best + in.from * g->c, place + in.from * g->c, row + in.column * g->c,
                            g->sw * g->c, (int32_t)(i * g->kw + j), in.n, g->c);
    }
  }
}

static void max_forward_row(const mptl_call *call, size_t at, float *buffer,
                            mptl_round_stats *stats) {
  mptl_pool g = mptl_call_pool(call);
  size_t row = g.ow * g.c;
  float *y = mptl_results(&call->y, at * row, buffer);
  find_maxima(call, &g, at / g.oh, at % g.oh, y, (int32_t *)(buffer + row), buffer + 2 * row);
  mptl_write(&call->y, at * row, row, y, stats);
}

static mptl_status max_forward(const mptl_call *call) {
  mptl_pool g = mptl_call_pool(call);
  mptl_run_rows(call, (size_t)call->batch * g.oh, max_floats(call), max_forward_row, &call->y, 1);
  return MPTL_OK;
}

/* Adds the gradients of a row of windows to dx, the rows [first, end) of the input's gradient. */
static void send_gradients(const mptl_pool *g, size_t oh, const float *dy, const int32_t *place,
                           float *dx, size_t first, size_t end) {
  for (size_t i = 0; i < g->kh; i++) {
    size_t ih = oh * g->sh + i; /* padding included */
    if (ih < first + g->ph || ih >= end + g->ph) continue;
    float *row = dx + (ih - g->ph - first) * g->iw * g->c;
    for (size_t j = g->kw; j-- > 0;) { /* a pixel gets those of its windows from left to right */
      const windows in = windows_inside(g, j);
      mptl_layers()->add_where(row + in.column * g->c, g->sw * g->c, dy + in.from * g->c,
                               place + in.from * g->c, (int32_t)(i * g->kw + j), in.n, g->c);
    }
  }
}

static size_t bands(const mptl_pool *g) { return (g->ih + g->sh - 1) / g->sh; }

static void max_backward_band(const mptl_call *call, size_t at, float *buffer,
                              mptl_round_stats *stats) {
  mptl_pool g = mptl_call_pool(call);
  size_t image = at / bands(&g), first = at % bands(&g) * g.sh,
         end = first + g.sh < g.ih ? first + g.sh : g.ih;
  size_t row = g.ow * g.c, n = (end - first) * g.iw * g.c,
         offset = (image * g.ih + first) * g.iw * g.c;
  float *best = buffer, *dy_buffer = buffer + 2 * row, *x = buffer + 3 * row;
  int32_t *place = (int32_t *)(buffer + row);
  float *dx = mptl_results(&call->dx[0], offset, x + g.iw * g.c);
  memset(dx, 0, n * sizeof *dx);
  /* The windows that overlap the band begin above its end and end at its first row or below. */
  size_t top = first + g.ph + 1;
  for (size_t oh = top > g.kh ? (top - g.kh + g.sh - 1) / g.sh : 0;
       oh < g.oh && oh * g.sh < end + g.ph; oh++) {
    find_maxima(call, &g, image, oh, best, place, x);
    send_gradients(&g, oh, mptl_read(&call->dy, (image * g.oh + oh) * row, row, dy_buffer), place,
                   dx, first, end);
  }
  mptl_write(&call->dx[0], offset, n, dx, stats);
}

static mptl_status max_backward(const mptl_call *call) {
  mptl_pool g = mptl_call_pool(call);
  if (mptl_wanted(&call->dx[0]))
    mptl_run_rows(call, (size_t)call->batch * bands(&g), max_floats(call), max_backward_band,
                  &call->dx[0], 1);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_avgpool = {
    .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward};
const mptl_cpu_op mptl_cpu_mean = {
    .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward};
const mptl_cpu_op mptl_cpu_maxpool = {
    .scratch_bytes = max_scratch_bytes, .forward = max_forward, .backward = max_backward};

/* concat and slice. They copy channels in rows of pixels, and round them to the format of the value
 * that they write. */
#include <string.h>

#include "backend/cpu/cpu.h"

/* The rows of a batch, and the pixels of a row. A flat value is an image of one pixel. */
static size_t rows(const mptl_call *call) {
  return (size_t)call->batch * (size_t)mptl_call_output(call).h;
}
static size_t width(const mptl_call *call) { return (size_t)mptl_call_output(call).w; }

/* ---- concat ---- */

/* Scratch memory of a thread: two rows with all channels. */
static size_t concat_floats(const mptl_call *call) {
  return 2 * width(call) * (size_t)mptl_call_output(call).c;
}
static size_t concat_scratch_bytes(const mptl_call *call) {
  return mptl_rows_scratch_bytes(call, concat_floats(call));
}

/* The places of an input's channels in a pixel of the output, which has c channels: before the
 * shuffle, from first to first + count - 1. */
typedef struct places {
  size_t c, first, count, shuffle;
} places;

static places places_of(const mptl_call *call, int k) {
  places p = {.c = (size_t)mptl_call_output(call).c, .shuffle = (size_t)call->op->attr.shuffle};
  for (int i = 0; i <= k; i++) {
    p.first += p.count;
    p.count = (size_t)mptl_call_input(call, i).c;
  }
  return p;
}

/* Channels [at, at + n) of the input, which are channels place, place + shuffle, ... of the
 * output. */
typedef struct span {
  size_t at, n, place;
} span;

/* Advances to the next span of an input's channels; false at the end. A zeroed span is before the
 * first one. A shuffle with g channel groups moves channel i of channel group j to place i g + j:
 * channels that were neighbours become g places apart. */
static bool next_span(span *r, const places *p) {
  size_t size = p->c / p->shuffle;
  r->at += r->n;
  size_t group = (p->first + r->at) / size, i = (p->first + r->at) % size, left = p->count - r->at;
  r->n = left < size - i ? left : size - i;
  r->place = i * p->shuffle + group;
  return left > 0;
}

/* Copies n elements with strides. */
static void copy(float *dst, size_t dst_stride, const float *src, size_t src_stride, size_t n) {
  if (dst_stride == 1 && src_stride == 1)
    memcpy(dst, src, n * sizeof *dst);
  else
    for (size_t i = 0; i < n; i++) dst[i * dst_stride] = src[i * src_stride];
}

/* Whether two inputs are the two channel groups of a shuffle, as in ShuffleNet: then their channels
 * alternate in the output. */
static bool alternates(const mptl_call *call) {
  return call->op->attr.shuffle == 2 && call->op->n_in == 2 &&
         mptl_call_input(call, 0).c == mptl_call_input(call, 1).c;
}

static void concat_forward_row(const mptl_call *call, size_t at, float *buffer,
                               mptl_round_stats *stats) {
  size_t w = width(call), n = w * (size_t)mptl_call_output(call).c;
  float *y = mptl_results(&call->y, at * n, buffer);
  if (alternates(call)) {
    size_t half = n / 2;
    const float *a = mptl_read(&call->in[0], at * half, half, buffer + n);
    const float *b = mptl_read(&call->in[1], at * half, half, buffer + n + half);
    mptl_layers()->interleave(y, a, b, half);
    mptl_write(&call->y, at * n, n, y, stats);
    return;
  }
  for (int k = 0; k < call->op->n_in; k++) {
    places p = places_of(call, k);
    const float *x = mptl_read(&call->in[k], at * w * p.count, w * p.count, buffer + n);
    for (size_t i = 0; i < w; i++)
      for (span r = {0}; next_span(&r, &p);)
        copy(y + i * p.c + r.place, p.shuffle, x + i * p.count + r.at, 1, r.n);
  }
  mptl_write(&call->y, at * n, n, y, stats);
}

static mptl_status concat_forward(const mptl_call *call) {
  mptl_run_rows(call, rows(call), concat_floats(call), concat_forward_row, &call->y, 1);
  return MPTL_OK;
}

static void concat_backward_row(const mptl_call *call, size_t at, float *buffer,
                                mptl_round_stats *stats) {
  size_t w = width(call), n = w * (size_t)mptl_call_output(call).c;
  const float *dy = mptl_read(&call->dy, at * n, n, buffer);
  if (alternates(call) && call->dx[0].wanted && call->dx[1].wanted) {
    size_t half = n / 2;
    float *a = mptl_results(&call->dx[0], at * half, buffer + n),
          *b = mptl_results(&call->dx[1], at * half, buffer + n + half);
    mptl_layers()->deinterleave(a, b, dy, half);
    mptl_write(&call->dx[0], at * half, half, a, &stats[0]);
    mptl_write(&call->dx[1], at * half, half, b, &stats[1]);
    return;
  }
  for (int k = 0; k < call->op->n_in; k++) {
    places p = places_of(call, k);
    if (!mptl_wanted(&call->dx[k])) continue;
    float *dx = mptl_results(&call->dx[k], at * w * p.count, buffer + n);
    for (size_t i = 0; i < w; i++)
      for (span r = {0}; next_span(&r, &p);)
        copy(dx + i * p.count + r.at, 1, dy + i * p.c + r.place, p.shuffle, r.n);
    mptl_write(&call->dx[k], at * w * p.count, w * p.count, dx, &stats[k]);
  }
}

static mptl_status concat_backward(const mptl_call *call) {
  mptl_run_rows(call, rows(call), concat_floats(call), concat_backward_row, call->dx,
                call->op->n_in);
  return MPTL_OK;
}

/* ---- slice ---- */

static size_t in_channels(const mptl_call *call) { return (size_t)mptl_call_input(call, 0).c; }

/* Scratch memory of a thread: a row with the input's channels, and two with the output's. Whole
 * rows are decoded and encoded, which is several times faster than pixel by pixel. */
static size_t slice_floats(const mptl_call *call) {
  return width(call) * (in_channels(call) + 2 * (size_t)mptl_call_output(call).c);
}
static size_t slice_scratch_bytes(const mptl_call *call) {
  return mptl_rows_scratch_bytes(call, slice_floats(call));
}

static void slice_forward_row(const mptl_call *call, size_t at, float *buffer,
                              mptl_round_stats *stats) {
  size_t w = width(call), count = (size_t)mptl_call_output(call).c, c = in_channels(call),
         n = w * count;
  float *y = mptl_results(&call->y, at * n, buffer);
  const float *x = mptl_read(&call->in[0], at * w * c, w * c, buffer + n) + call->op->attr.first;
  for (size_t i = 0; i < w; i++) memcpy(y + i * count, x + i * c, count * sizeof *y);
  mptl_write(&call->y, at * n, n, y, stats);
}

static mptl_status slice_forward(const mptl_call *call) {
  mptl_run_rows(call, rows(call), slice_floats(call), slice_forward_row, &call->y, 1);
  return MPTL_OK;
}

/* Writes the slice's channels of a row of the input's gradient; other slices write the other
 * channels. Rounds or encodes the row in buffer, then copies each pixel to its place. */
static void write_part(const mptl_call *call, size_t at, float *row, float *buffer,
                       mptl_round_stats *stats) {
  const mptl_sink *sink = &call->dx[0];
  size_t w = width(call), count = (size_t)mptl_call_output(call).c, bytes = count * sink->size;
  mptl_sink together = *sink;
  together.data = buffer;
  together.index0 += at * w * count;
  mptl_write(&together, 0, w * count, row, stats);
  for (size_t i = 0; i < w && !sink->ranging; i++) {
    size_t place = (at * w + i) * in_channels(call) + (size_t)call->op->attr.first;
    memcpy((char *)sink->data + place * sink->size, (char *)buffer + i * bytes, bytes);
  }
}

static void slice_backward_row(const mptl_call *call, size_t at, float *buffer,
                               mptl_round_stats *stats) {
  const mptl_sink *sink = &call->dx[0];
  size_t w = width(call), count = (size_t)mptl_call_output(call).c, c = in_channels(call),
         n = w * count;
  const float *dy = mptl_read(&call->dy, at * n, n, buffer);
  if (sink->part) {
    if (dy != buffer) memcpy(buffer, dy, n * sizeof *dy);
    write_part(call, at, buffer, buffer + n, stats);
    return;
  }
  float *dx = mptl_results(sink, at * w * c, buffer + n), *place = dx + call->op->attr.first;
  memset(dx, 0, w * c * sizeof *dx);
  for (size_t i = 0; i < w; i++) memcpy(place + i * c, dy + i * count, count * sizeof *dx);
  mptl_write(sink, at * w * c, w * c, dx, stats);
}

static mptl_status slice_backward(const mptl_call *call) {
  if (mptl_wanted(&call->dx[0]))
    mptl_run_rows(call, rows(call), slice_floats(call), slice_backward_row, &call->dx[0], 1);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_concat = {
    .scratch_bytes = concat_scratch_bytes, .forward = concat_forward, .backward = concat_backward};
const mptl_cpu_op mptl_cpu_slice = {
    .scratch_bytes = slice_scratch_bytes, .forward = slice_forward, .backward = slice_backward};

/* Backward by weights in bf16 (conv_bf16.h): tiles of 16 output channels by 16 input channels, for
 * each weight of the window.
 *
 * The terms of a unit are its output pixels: line by line, in a line image by image. So the pixels
 * that a weight in window row ky meets are a stretch of memory, if rows of x are in the same order.
 * Each thread has its own tiles of the weights, and prepares what they need: the transpose of dy;
 * and for 32 channels of x at a time, for each window column kx, the pixels that it meets, in pairs.
 * Rows of x are in classes, by their remainder by the stride.
 */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conv_bf16_plan.h"
#include "core/memory.h"

enum {
  SIDE = MPTL_BF16_SIDE,
  TERMS = MPTL_BF16_TERMS,
  BLOCK = MPTL_BF16_BLOCK,
  TILE = SIDE * SIDE,
  UNIT_PIXELS = 1024, /* of a unit, at least: this is in the definition of the sums */
  X_CHANNELS = 2 * SIDE,
  DY_CHANNELS = 4 * SIDE /* prepared at once */
};

/* ---- Planning ---- */

static size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
static size_t out_tiles(const mptl_conv_bf16 *f) { return ceil_div((size_t)f->v.s.oc, SIDE); }
static size_t in_tiles(const mptl_conv_bf16 *f) { return ceil_div((size_t)f->v.s.ic, SIDE); }
static size_t in_groups(const mptl_conv_bf16 *f) { return ceil_div((size_t)f->v.s.ic, X_CHANNELS); }
static size_t taps(const mptl_conv_bf16 *f) { return (size_t)f->v.s.kh * (size_t)f->v.s.kw; }

/* Places of the rows of x that windows reach: row ky of the window of line y is row
 * y + row_of[ky] of class class_of[ky]. */
static mptl_status find_classes(mptl_conv_bf16 *f) {
  const mptl_conv_shape *s = &f->v.s;
  f->class_rows = calloc((size_t)s->sh, sizeof *f->class_rows);
  f->class_of = calloc((size_t)s->kh, sizeof *f->class_of);
  f->row_of = calloc((size_t)s->kh, sizeof *f->row_of);
  if (f->class_rows == NULL || f->class_of == NULL || f->row_of == NULL)
    return mptl_fail(MPTL_ENOMEM, "no memory");
  for (int ky = 0; ky < s->kh; ky++) {
    f->class_of[ky] = ky * s->dh % s->sh;
    f->row_of[ky] = ky * s->dh / s->sh;
    f->class_rows[f->class_of[ky]] = f->row_of[ky] + 1; /* beside the lines; ascends with ky */
  }
  return MPTL_OK;
}

/* About how many cycles a thread takes for a block of terms, with that many tiles. */
static size_t cost(const mptl_conv_bf16 *f, size_t out, size_t groups) {
  return out * groups * 2 * taps(f) * 25 + out * 130 + groups * (size_t)f->v.s.kw * 100;
}

/* How threads share out tiles: thread_rows of output channels, thread_columns of input channels. */
static void share_out(mptl_conv_bf16 *f) {
  size_t least = SIZE_MAX;
  for (int rows = 1; rows <= f->v.threads; rows++) {
    const int columns = f->v.threads / rows;
    const size_t now =
        cost(f, ceil_div(out_tiles(f), (size_t)rows), ceil_div(in_groups(f), (size_t)columns));
    if (now >= least) continue;
    least = now;
    f->thread_rows = rows, f->thread_columns = columns;
  }
}

mptl_status mptl_conv_bf16_plan_weights(mptl_conv_bf16 *f) {
  const mptl_conv_shape *s = &f->v.s;
  MPTL_TRY(mptl_conv_plan(&f->v));
  MPTL_TRY(find_classes(f));
  const int pixels = s->oh * s->ow;
  f->unit_images = mptl_conv_least((UNIT_PIXELS + pixels - 1) / pixels, s->n);
  f->unit_lines = pixels < UNIT_PIXELS ? s->oh : (UNIT_PIXELS + s->ow - 1) / s->ow;
  f->line_pixels = (f->unit_images * s->ow + 1) / 2 * 2;
  f->unit_blocks = ceil_div((size_t)f->unit_lines * (size_t)f->line_pixels, TERMS);
  share_out(f);
  f->blocks_of_unit = malloc(f->unit_blocks * sizeof *f->blocks_of_unit);
  if (f->blocks_of_unit == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  for (size_t i = 0; i < f->unit_blocks; i++) f->blocks_of_unit[i] = i * BLOCK;
  return MPTL_OK;
}

/* ---- Memory ---- */

/* Pixels of a class of rows in memory, followed by some of zeros. */
static size_t class_pixels(const mptl_conv_bf16 *f, int class) {
  if (f->class_rows[class] == 0) return 0;
  return (size_t)(f->unit_lines - 1 + f->class_rows[class]) * (size_t)f->line_pixels + TERMS;
}

/* The first pixel of a class in a window column, and all pixels of a window column. */
static size_t class_at(const mptl_conv_bf16 *f, int class) {
  size_t n = 0;
  for (int c = 0; c < class; c++) n += class_pixels(f, c);
  return n;
}
static size_t column_pixels(const mptl_conv_bf16 *f) { return class_at(f, f->v.s.sh); }

/* Of all threads: sums, [output tile][input tile][weight][16][16]; of the bias, [output tile][16]
 * [16]. Of each thread: dy transposed, [part][tile][block]; x, [part][window column][tile]
 * [pixel / 2][channel][2]; some channels of dy; rows and a line of x; ones. */
typedef struct areas {
  size_t bias, shared, x, dy_channels, row, line, ones, bytes;
} areas;

static areas areas_of(const mptl_conv_bf16 *f) {
  const mptl_conv *v = &f->v;
  const size_t number = sizeof(uint16_t), kw = (size_t)v->s.kw,
               own_tiles = ceil_div(out_tiles(f), (size_t)f->thread_rows);
  areas a = {.bias = out_tiles(f) * in_tiles(f) * taps(f) * TILE * sizeof(float)};
  a.shared = a.bias + (v->s.bias ? out_tiles(f) * TILE * sizeof(float) : 0);
  a.x = f->row_parts * own_tiles * f->unit_blocks * BLOCK * number;
  a.dy_channels = a.x + mptl_aligned(f->column_parts * kw * column_pixels(f) * X_CHANNELS * number);
  a.row = a.dy_channels + f->row_parts * f->unit_blocks * TERMS * DY_CHANNELS * number;
  a.line = a.row + mptl_aligned(f->column_parts * (size_t)f->unit_images * (size_t)v->pitch *
                                X_CHANNELS * number);
  a.ones = a.line + mptl_aligned(v->s.ow % 2 ? (size_t)f->line_pixels * X_CHANNELS * number : 0);
  a.bytes = a.ones + (v->s.bias ? f->unit_blocks * BLOCK * number : 0);
  return a;
}

size_t mptl_conv_bf16_weights_bytes(const mptl_conv_bf16 *f) {
  const areas a = areas_of(f);
  return a.shared + (size_t)f->v.threads * a.bytes;
}

/* ---- Units ---- */

/* Some images, or some lines of one. */
typedef struct unit {
  int image, images, line, lines;
  size_t blocks;
} unit;

/* Moves to the next unit; false after the last one. At first it is all 0. */
static bool next_unit(const mptl_conv_bf16 *f, unit *u) {
  const mptl_conv_shape *s = &f->v.s;
  u->line += u->lines;
  if (u->line == s->oh) u->line = 0, u->image += u->images;
  u->images = mptl_conv_least(f->unit_images, s->n - u->image);
  u->lines = mptl_conv_least(f->unit_lines, s->oh - u->line);
  u->blocks = ceil_div((size_t)u->lines * (size_t)f->line_pixels, TERMS);
  return u->image < s->n;
}

/* A pass that runs; a thread's memory and its tiles. */
typedef struct run {
  const mptl_conv_bf16 *f;
  const mptl_source *x, *dy;
  float *sums, *bias_sums;
} run;

typedef struct memory {
  uint16_t *dy, *x, *dy_channels, *row, *line, *ones;
} memory;

typedef struct share {
  size_t out, out_end, group, group_end;
} share;

/* ---- Preparing ---- */

/* Distances of the parts of dy and x in memory. */
static size_t dy_part(const mptl_conv_bf16 *f) {
  return ceil_div(out_tiles(f), (size_t)f->thread_rows) * f->unit_blocks * BLOCK;
}
static size_t x_part(const mptl_conv_bf16 *f) {
  return (size_t)f->v.s.kw * column_pixels(f) * X_CHANNELS;
}

/* dy of a unit for the thread's output channels, transposed. */
static void prepare_dy(const run *r, const unit *u, const share *own, const memory *m) {
  const mptl_conv_bf16 *f = r->f;
  const mptl_conv_shape *s = &f->v.s;
  const size_t oc = (size_t)s->oc, ow = (size_t)s->ow, terms = u->blocks * TERMS,
               pixels = (size_t)u->lines * (size_t)u->images * ow, part = terms * DY_CHANNELS;
  for (size_t tile = own->out; tile < own->out_end; tile += DY_CHANNELS / SIDE) {
    const size_t left = oc - tile * SIDE, channels = left < DY_CHANNELS ? left : DY_CHANNELS,
                 tiles = own->out_end - tile;
    if (channels < DY_CHANNELS || pixels < terms)
      memset(m->dy_channels, 0, f->row_parts * part * sizeof *m->dy_channels);
    for (int y = 0; y < u->lines; y++)
      for (int i = 0; i < u->images; i++) {
        const size_t line = (size_t)(u->image + i) * (size_t)s->oh + (size_t)(u->line + y),
                     at = (size_t)y * (size_t)f->line_pixels + (size_t)i * ow;
        mptl_conv_read(f, r->dy, f->row_parts, line * ow * oc + tile * SIDE, channels, oc, ow,
                       m->dy_channels + at * DY_CHANNELS, DY_CHANNELS, part);
      }
    for (unsigned p = 0; p < f->row_parts; p++)
      for (size_t t = 0; t < DY_CHANNELS / SIDE && t < tiles; t++)
        for (size_t b = 0; b < u->blocks; b++)
          f->kernels->turn(m->dy + p * dy_part(f) + ((tile - own->out + t) * u->blocks + b) * BLOCK,
                           m->dy_channels + p * part + b * TERMS * DY_CHANNELS + t * SIDE,
                           DY_CHANNELS);
  }
}

/* Where a pixel of a window column and of one of the two tiles of channels is. */
static uint16_t *pixel_of(const mptl_conv_bf16 *f, uint16_t *x, int kx, size_t tile, size_t pixel) {
  return x + (((size_t)kx * 2 + tile) * column_pixels(f) + pixel) * SIDE;
}

/* A row of one part of x, [image][column][32 channels], becomes the pixels that each window column
 * meets. Lines of odd width are put together first, so that pairs are whole. */
static void pair_row(const mptl_conv_bf16 *f, const uint16_t *row, size_t to, uint16_t *x,
                     uint16_t *line) {
  const mptl_conv_shape *s = &f->v.s;
  const size_t ow = (size_t)s->ow, pixels = (size_t)f->line_pixels,
               step = (size_t)s->sw * X_CHANNELS, of_row = (size_t)f->v.pitch * X_CHANNELS;
  for (int kx = 0; kx < s->kw; kx++) {
    const uint16_t *from = row + (size_t)(kx * s->dw) * X_CHANNELS;
    uint16_t *first = pixel_of(f, x, kx, 0, to), *second = pixel_of(f, x, kx, 1, to);
    for (int i = 0; i < f->unit_images; i++, from += of_row) {
      const size_t at = (size_t)i * ow;
      if (ow % 2 == 0) f->kernels->pair(first + at * SIDE, second + at * SIDE, from, step, ow);
      for (size_t k = 0; k < ow && ow % 2 != 0; k++)
        memcpy(line + (at + k) * X_CHANNELS, from + k * step, X_CHANNELS * sizeof *line);
    }
    if (ow % 2 != 0) f->kernels->pair(first, second, line, X_CHANNELS, pixels);
  }
}

/* Row `row` of x of a unit's images, for a group of channels; `to` is the place of its first
 * pixel. */
static void prepare_row(const run *r, const unit *u, size_t group, int row, size_t to,
                        const memory *m) {
  const mptl_conv_bf16 *f = r->f;
  const mptl_conv *v = &f->v;
  const size_t ic = (size_t)v->s.ic, w = (size_t)v->s.iw, left = ic - group * X_CHANNELS,
               channels = left < X_CHANNELS ? left : X_CHANNELS,
               of_row = (size_t)v->pitch * X_CHANNELS, part = (size_t)f->unit_images * of_row;
  const bool inside = row >= 0 && row < v->s.ih;
  for (int i = 0; inside && i < u->images; i++)
    mptl_conv_read(
        f, r->x, f->column_parts,
        ((size_t)(u->image + i) * (size_t)v->s.ih + (size_t)row) * w * ic + group * X_CHANNELS,
        channels, ic, w, m->row + (size_t)i * of_row + (size_t)v->left * X_CHANNELS, X_CHANNELS,
        part);
  for (unsigned p = 0; p < f->column_parts; p++) {
    uint16_t *x = m->x + p * x_part(f);
    for (int kx = 0; kx < v->s.kw && !inside; kx++)
      for (size_t tile = 0; tile < 2; tile++)
        memset(pixel_of(f, x, kx, tile, to), 0, (size_t)f->line_pixels * SIDE * sizeof *x);
    if (inside) pair_row(f, m->row + p * part, to, x, m->line);
  }
}

/* x of a unit for a group of 32 input channels. Channels beyond the last one, padding and images
 * that the unit lacks are zeros. */
static void prepare_x(const run *r, const unit *u, size_t group, const memory *m) {
  const mptl_conv_bf16 *f = r->f;
  const mptl_conv_shape *s = &f->v.s;
  memset(
      m->row, 0,
      f->column_parts * (size_t)f->unit_images * (size_t)f->v.pitch * X_CHANNELS * sizeof *m->row);
  for (int c = 0; c < s->sh; c++) {
    if (f->class_rows[c] == 0) continue;
    const int rows = u->lines - 1 + f->class_rows[c];
    const size_t first = class_at(f, c);
    const size_t past = first + (size_t)rows * (size_t)f->line_pixels;
    for (int i = 0; i < rows; i++)
      prepare_row(r, u, group, (u->line + i) * s->sh + c - f->v.top,
                  first + (size_t)i * (size_t)f->line_pixels, m);
    for (unsigned p = 0; p < f->column_parts; p++)
      for (int kx = 0; kx < s->kw; kx++)
        for (size_t tile = 0; tile < 2; tile++)
          memset(pixel_of(f, m->x + p * x_part(f), kx, tile, past), 0, TERMS * SIDE * sizeof *m->x);
  }
}

/* ---- Sums ---- */

/* Tiles beside each other: of input channels, of weights of the window, or ones for the bias. */
typedef struct column_tiles {
  const uint16_t *at[MPTL_BF16_TILES];
  float *to[MPTL_BF16_TILES]; /* for output tile 0; others follow at distance `distance` */
  size_t distance;
  unsigned n, parts;
  size_t part; /* distance of their parts */
} column_tiles;

/* Adds the sums of a unit for some columns and all of the thread's output channels. */
static void add_columns(const mptl_conv_bf16 *f, const unit *u, const size_t *places,
                        const share *own, const column_tiles *c, mptl_chain_end end,
                        const memory *m) {
  mptl_bf16_product p = {.columns = {c->at[0], c->at[1]},
                         .across = c->n,
                         .row_parts = f->row_parts,
                         .column_parts = c->parts,
                         .column_part = c->part,
                         .blocks = u->blocks,
                         .step = SIDE,
                         .end = end};
  for (size_t tile = own->out; tile < own->out_end; tile += MPTL_BF16_TILES) {
    p.down = own->out_end - tile < MPTL_BF16_TILES ? 1 : MPTL_BF16_TILES;
    for (size_t t = 0; t < p.down; t++) {
      p.rows[t] = (mptl_bf16_rows){m->dy + (tile + t - own->out) * u->blocks * BLOCK, TERMS,
                                   dy_part(f), places};
      for (size_t k = 0; k < c->n; k++) p.to[t][k] = c->to[k] + (tile + t) * c->distance;
    }
    f->kernels->multiply(&p);
  }
}

/* The same for all weights of a group of input channels. */
static void add_group(const run *r, const unit *u, const size_t *places, const share *own,
                      size_t group, mptl_chain_end end, const memory *m) {
  const mptl_conv_bf16 *f = r->f;
  const mptl_conv_shape *s = &f->v.s;
  const size_t left = in_tiles(f) - group * 2, tiles = left < 2 ? left : 2;
  column_tiles c = {
      .distance = in_tiles(f) * taps(f) * TILE, .parts = f->column_parts, .part = x_part(f)};
  for (int ky = 0; ky < s->kh; ky++) {
    const size_t pixel =
        class_at(f, f->class_of[ky]) + (size_t)f->row_of[ky] * (size_t)f->line_pixels;
    for (int kx = 0; kx < s->kw; kx++)
      for (size_t tile = 0; tile < tiles; tile++) {
        const size_t tap = (size_t)(ky * s->kw + kx);
        c.at[c.n] = pixel_of(f, m->x, kx, tile, pixel);
        c.to[c.n] = r->sums + ((group * 2 + tile) * taps(f) + tap) * TILE;
        const bool last = tap + 1 == taps(f) && tile + 1 == tiles;
        if (++c.n < MPTL_BF16_TILES && !last) continue;
        add_columns(f, u, places, own, &c, end, m);
        c.n = 0;
      }
  }
}

static void add_bias(const run *r, const unit *u, const size_t *places, const share *own,
                     mptl_chain_end end, const memory *m) {
  const column_tiles c = {
      .at = {m->ones}, .to = {r->bias_sums}, .distance = TILE, .n = 1, .parts = 1};
  add_columns(r->f, u, places, own, &c, end, m);
}

/* The sums of all units for a thread's tiles. */
static void add_units(const run *r, const size_t *places, const share *own, const memory *m) {
  mptl_chain_end end = MPTL_CHAIN_STORE;
  for (unit u = {0}; next_unit(r->f, &u); end = MPTL_CHAIN_ADD) {
    prepare_dy(r, &u, own, m);
    for (size_t g = own->group; g < own->group_end; g++) {
      prepare_x(r, &u, g, m);
      add_group(r, &u, places, own, g, end, m);
    }
    if (r->bias_sums != NULL && own->group == 0) add_bias(r, &u, places, own, end, m);
  }
}

/* Sums of an output channel and up to 16 input channels to [channel][weight]. */
static void unpack_row(const mptl_conv_bf16 *f, const float *sums, size_t channels, float *to) {
  float buffer[TILE]; /* [channel][16 weights] */
  const size_t all = taps(f), end = channels * all;
  if (all == 1) memcpy(to, sums, channels * sizeof *to);
  for (size_t t = 0, n; t < all && all > 1; t += n) {
    n = all - t < SIDE ? all - t : SIDE;
    f->kernels->transpose(buffer, sums + t * TILE, TILE, n, channels);
    for (size_t i = 0; i < channels; i++) {
      const size_t at = i * all + t;
      /* Whole vectors, whose ends are overwritten, where they end before the row does. */
      const bool whole = n == all && at + SIDE <= end;
      memcpy(to + at, buffer + i * SIDE, (whole ? SIDE : n) * sizeof *to);
    }
  }
}

/* From a thread's sums to [oc][ic][kh][kw]. */
static void unpack(const run *r, const share *own, float *dweights, float *dbias) {
  const mptl_conv_bf16 *f = r->f;
  const size_t ic = (size_t)f->v.s.ic, oc = (size_t)f->v.s.oc;
  for (size_t o = own->out * SIDE; o < own->out_end * SIDE && o < oc; o++) {
    for (size_t i = own->group * X_CHANNELS; i < own->group_end * X_CHANNELS && i < ic; i += SIDE)
      unpack_row(f,
                 r->sums + (o / SIDE * in_tiles(f) + i / SIDE) * taps(f) * TILE + o % SIDE * SIDE,
                 ic - i < SIDE ? ic - i : SIDE, dweights + (o * ic + i) * taps(f));
    if (dbias != NULL && own->group == 0)
      dbias[o] = r->bias_sums[o / SIDE * TILE + o % SIDE * SIDE];
  }
}

static share share_of(const mptl_conv_bf16 *f, size_t thread) {
  const size_t rows = (size_t)f->thread_rows, columns = (size_t)f->thread_columns,
               row = thread / columns, column = thread % columns, out = out_tiles(f),
               groups = in_groups(f);
  if (row >= rows) return (share){0};
  return (share){out * row / rows, out * (row + 1) / rows, groups * column / columns,
                 groups * (column + 1) / columns};
}

void mptl_conv_bf16_backward_weights(const mptl_conv_bf16 *f, float *dweights, float *dbias,
                                     const mptl_source *x, const mptl_source *dy, void *scratch) {
  const areas a = areas_of(f);
  char *shared = scratch;
  const run r = {f, x, dy, (float *)shared, dbias ? (float *)(shared + a.bias) : NULL};
#pragma omp parallel num_threads(f->v.threads)
  {
    const size_t thread = (size_t)omp_get_thread_num();
    char *at = shared + a.shared + thread * a.bytes;
    const memory m = {
        (uint16_t *)at,           (uint16_t *)(at + a.x),    (uint16_t *)(at + a.dy_channels),
        (uint16_t *)(at + a.row), (uint16_t *)(at + a.line), (uint16_t *)(at + a.ones)};
    for (size_t i = 0; dbias != NULL && i < f->unit_blocks * BLOCK; i++) m.ones[i] = 0x3f80; /* 1 */
    if (f->v.s.ow % 2 != 0) memset(m.line, 0, (size_t)f->line_pixels * X_CHANNELS * sizeof *m.line);
    f->kernels->begin();
    /* OpenMP may run fewer threads than there are shares. */
    for (size_t i = thread; i < (size_t)f->v.threads; i += (size_t)omp_get_num_threads()) {
      const share own = share_of(f, i);
      if (own.out == own.out_end || own.group == own.group_end) continue;
      add_units(&r, f->blocks_of_unit, &own, &m);
      unpack(&r, &own, dweights, dbias);
    }
    f->kernels->end();
  }
}

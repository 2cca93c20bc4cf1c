/* Forward and backward by data in bf16 (conv_bf16.h).
 *
 * A thread takes a band: whole images, or some lines of one. It decodes the band's operand with
 * rows and columns of zeros around it, and computes a chunk of lines at a time. 16 pixels are the
 * rows of a tile. Where their windows are at equal distances in memory, and consist of whole
 * blocks, tiles are loaded from there; else their blocks are gathered. A piece of all windows'
 * blocks meets one panel of weights after another; sums between pieces stay in binary32.
 */
#include "backend/cpu/conv_bf16_plan.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

enum {
  SIDE = MPTL_BF16_SIDE,
  TERMS = MPTL_BF16_TERMS,
  BLOCK = MPTL_BF16_BLOCK,
  ACROSS = MPTL_BF16_TILES,
  CHUNK_PIXELS = 256, /* that meet a panel's piece one after another */
  TRANSPOSED = 256,   /* weights of a column that are transposed at once, at most */
};
typedef mptl_conv_blocks phase_blocks;

static int round_up(int n, int to) { return (n + to - 1) / to * to; }
static size_t column_tiles(const mptl_conv_bf16 *f) {
  return ((size_t)f->v.columns + SIDE - 1) / SIDE;
}
static size_t padded_columns(const mptl_conv_bf16 *f) { return column_tiles(f) * SIDE; }

/* ---- Planning ---- */

/* Cuts the spans of a phase's window into blocks. */
static mptl_status cut(phase_blocks *b, const mptl_conv_phase *p, int window_rows) {
  const mptl_conv_kind *kind = &p->kind[0];
  const size_t spans = (size_t)window_rows * kind->spans_of_row, terms = spans * kind->length;
  size_t at = 0;
  b->n = (terms + TERMS - 1) / TERMS;
  b->run = malloc((b->n + spans + 1) * sizeof *b->run);
  b->first = malloc((b->n + 1) * sizeof *b->first);
  b->place = malloc((b->n + 1) * sizeof *b->place);
  if (b->run == NULL || b->first == NULL || b->place == NULL)
    return mptl_fail(MPTL_ENOMEM, "no memory");
  for (size_t t = 0; t < spans; t++)
    for (size_t i = 0, count; i < kind->length; i += count, at += count) {
      const size_t left = TERMS - at % TERMS;
      count = kind->length - i < left ? kind->length - i : left;
      if (at % TERMS == 0) b->first[at / TERMS] = b->runs, b->place[at / TERMS] = kind->span[t] + i;
      b->run[b->runs++] = (mptl_bf16_run){.from = kind->span[t] + i,
                                          .block = at / TERMS,
                                          .to = (unsigned)(at % TERMS),
                                          .count = (unsigned)count};
    }
  b->first[b->n] = b->runs;
  b->is_whole = b->runs == b->n && terms % TERMS == 0;
  return MPTL_OK;
}

static size_t image_bytes(const mptl_conv_bf16 *f, int rows) {
  return f->row_parts * (size_t)rows * (size_t)f->v.pitch * (size_t)f->v.c * sizeof(uint16_t);
}

/* Rows of zeros and of the operand that n lines read; one, if no window has a weight. */
static int rows_of_lines(const mptl_conv *v, int n) {
  return (n - 1) * v->in_stride_y + (v->reach > 0 ? v->reach : 1);
}

/* Bands whose operands are a quarter of the second-level cache, and chunks whose results are
 * another one. */
static void make_bands(mptl_conv_bf16 *f) {
  mptl_conv *v = &f->v;
  const size_t cache = v->piece_floats * sizeof(float); /* a quarter */
  f->padded_rows = rows_of_lines(v, v->lines);
  if (image_bytes(f, f->padded_rows) <= cache) {
    const size_t images = cache / image_bytes(f, f->padded_rows);
    int bands = images >= (size_t)v->s.n ? 1 : (int)(((size_t)v->s.n + images - 1) / images);
    bands = mptl_conv_least(round_up(bands, v->threads), v->s.n);
    f->band_images = (v->s.n + bands - 1) / bands;
    v->bands = bands;
    v->band_lines = f->band_images * v->lines;
    v->band_rows = f->band_images * f->padded_rows;
  } else {
    int lines = v->lines;
    while (lines > 1 && image_bytes(f, rows_of_lines(v, lines)) > cache) lines--;
    f->band_images = 1;
    v->bands_of_image = (v->lines + lines - 1) / lines;
    v->bands = v->s.n * v->bands_of_image;
    v->band_lines = (v->lines + v->bands_of_image - 1) / v->bands_of_image;
    v->band_rows = rows_of_lines(v, v->band_lines);
  }
  const size_t results = cache / sizeof(float) / padded_columns(f);
  const int pixels = results < CHUNK_PIXELS ? (int)results : CHUNK_PIXELS,
            lines = pixels / v->phases[0].columns;
  const int chunks = lines > 0 ? (v->band_lines + lines - 1) / lines : v->band_lines;
  v->chunk_lines = (v->band_lines + chunks - 1) / chunks;
  f->chunk_pixels = round_up(v->chunk_lines * v->phases[0].columns, SIDE);
}

static mptl_status plan(mptl_conv_bf16 *f) {
  mptl_conv *v = &f->v;
  MPTL_TRY(mptl_conv_plan(v));
  f->blocks = calloc((size_t)v->n_phases, sizeof *f->blocks);
  if (f->blocks == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  size_t most = 1;
  for (int i = 0; i < v->n_phases; i++) {
    phase_blocks *b = &f->blocks[i];
    MPTL_TRY(cut(b, &v->phases[i], v->phases[i].window_rows));
    b->packed = f->packed;
    f->packed += b->n * f->column_parts * BLOCK * column_tiles(f);
    if (b->n > most) most = b->n;
  }
  const size_t at_once = MPTL_CONV_PIECE / (f->row_parts * f->column_parts),
               pieces = (most + at_once - 1) / at_once;
  f->piece = (most + pieces - 1) / pieces;
  for (size_t i = 0; i < MPTL_CONV_PIECE; i++) f->gathered[i] = i * BLOCK;
  make_bands(f);
  return MPTL_OK;
}

mptl_status mptl_conv_bf16_create(mptl_conv_bf16 **conv, const mptl_bf16_kernels *kernels,
                                  int threads, const mptl_conv_shape *shape, mptl_pass pass,
                                  const unsigned parts[2]) {
  MPTL_TRY(mptl_conv_check(shape));
  mptl_conv_bf16 *f = calloc(1, sizeof *f);
  if (f == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  f->v = (mptl_conv){
      .s = *shape, .pass = pass, .threads = threads, .kernels = mptl_products(), .is_padded = true};
  f->kernels = kernels;
  f->row_parts = parts[pass == MPTL_BACKWARD_WEIGHTS]; /* there rows are of dy */
  f->column_parts = parts[pass != MPTL_BACKWARD_WEIGHTS];
  mptl_status status = pass == MPTL_BACKWARD_WEIGHTS ? mptl_conv_bf16_plan_weights(f) : plan(f);
  if (status != MPTL_OK) {
    mptl_conv_bf16_destroy(f);
    return status;
  }
  *conv = f;
  return MPTL_OK;
}

void mptl_conv_bf16_destroy(mptl_conv_bf16 *f) {
  if (f == NULL) return;
  for (int i = 0; f->blocks != NULL && i < f->v.n_phases; i++) {
    free(f->blocks[i].run);
    free(f->blocks[i].first);
    free(f->blocks[i].place);
  }
  free(f->blocks);
  free(f->blocks_of_unit);
  free(f->class_rows);
  free(f->class_of);
  free(f->row_of);
  mptl_conv_release(&f->v);
  free(f);
}

/* ---- Memory ---- */

/* Whether results of a chunk are rounded in another order than that of the tiles. */
static bool moves_results(const mptl_conv_bf16 *f) {
  return f->v.n_phases > 1 || padded_columns(f) != (size_t)f->v.out_c;
}

/* Of each thread: a band's operand; a chunk's gathered blocks, its results in tiles, and in their
 * order; places of its pixels. */
typedef struct areas {
  size_t operand, blocks, tiles, results, places, bytes;
} areas;

static areas areas_of(const mptl_conv_bf16 *f) {
  const mptl_conv *v = &f->v;
  const size_t pixels = (size_t)f->chunk_pixels,
               out = (size_t)v->chunk_lines * (size_t)v->out_stride_y * (size_t)v->out_w;
  areas a = {.operand = 0};
  a.blocks = mptl_aligned(image_bytes(f, v->band_rows) + TERMS * sizeof(uint16_t));
  a.tiles = a.blocks + f->row_parts * CHUNK_PIXELS * TERMS * f->piece * sizeof(uint16_t);
  a.results = a.tiles + mptl_aligned(pixels * padded_columns(f) * sizeof(float));
  a.places =
      a.results + (moves_results(f) ? mptl_aligned(out * (size_t)v->out_c * sizeof(float)) : 0);
  a.bytes = a.places + mptl_aligned(2 * pixels * sizeof(size_t));
  return a;
}

size_t mptl_conv_bf16_packed_bytes(const mptl_conv_bf16 *f) {
  return mptl_aligned(f->packed * sizeof(uint16_t));
}

size_t mptl_conv_bf16_scratch_bytes(const mptl_conv_bf16 *f) {
  if (f->v.pass == MPTL_BACKWARD_WEIGHTS) return mptl_conv_bf16_weights_bytes(f);
  return (size_t)f->v.threads * areas_of(f).bytes;
}

/* ---- Packing ---- */

/* What is packed: a phase's weights of `columns` columns from `begin` on. Weights of channel i and
 * column j begin at from[i * channel_step + j * column_step]. */
typedef struct weights {
  const mptl_conv_phase *phase;
  const float *from;
  size_t channel_step, column_step, channels, columns, window;
} weights;

static weights weights_at(const mptl_conv *v, const mptl_conv_phase *p, size_t begin,
                          const float *all) {
  const size_t window = (size_t)v->s.kh * (size_t)v->s.kw, row = (size_t)v->s.ic * window,
               left = (size_t)v->columns - begin;
  weights w = {p, all, row, window, (size_t)v->group_in, left < SIDE ? left : SIDE, window};
  if (v->pass == MPTL_FORWARD) w.channel_step = window, w.column_step = row;
  w.from += begin * w.column_step;
  return w;
}

/* Pairs of channels, and so of terms. Some channels at a time are transposed: [channel][weight of
 * the window][column]. */
static void pack_pairs(const mptl_conv_bf16 *f, const weights *w, uint16_t *to, size_t of_part) {
  const mptl_bf16_kernels *kernels = f->kernels;
  float buffer[TRANSPOSED * SIDE];
  const size_t at_once = TRANSPOSED / w->window / 2 * 2, taps = (size_t)w->phase->taps;
  for (size_t from = 0, n; from < w->channels; from += n) {
    const float *first = w->from + from * w->channel_step;
    n = w->channels - from < at_once ? w->channels - from : at_once;
    if (w->channel_step == w->window)
      kernels->transpose(buffer, first, w->column_step, w->columns, n * w->window);
    else
      for (size_t i = 0; i < n; i++)
        kernels->transpose(buffer + i * w->window * SIDE, first + i * w->channel_step,
                           w->column_step, w->columns, w->window);
    for (size_t t = 0; t < taps; t++)
      for (size_t i = 0; i < n; i += 2) {
        const float *terms = buffer + (i * w->window + (size_t)w->phase->tap[t]) * SIDE;
        for (unsigned part = 0; part < f->column_parts; part++)
          kernels->join(to + (t * w->channels + from + i) * SIDE + part * of_part, terms,
                        terms + w->window * SIDE, part);
      }
  }
}

/* The same, a term at a time, for any number of channels. */
static void pack_terms(const mptl_conv_bf16 *f, const weights *w, uint16_t *to, size_t of_part) {
  const size_t taps = (size_t)w->phase->taps, terms = taps * w->channels;
  for (size_t k = 0; k < terms; k += 2) {
    float pair[2][SIDE] = {{0}};
    for (size_t i = k; i < k + 2 && i < terms; i++)
      for (size_t j = 0; j < w->columns; j++)
        pair[i - k][j] = w->from[i % w->channels * w->channel_step + j * w->column_step +
                                 (size_t)w->phase->tap[i / w->channels]];
    for (unsigned part = 0; part < f->column_parts; part++)
      f->kernels->join(to + k * SIDE + part * of_part, pair[0], pair[1], part);
  }
}

/* A tile of 16 columns of weights, [part][block][pair][column][2]; what is beyond is zero. */
static void pack_columns(const mptl_conv_bf16 *f, const weights *w, size_t blocks, uint16_t *to) {
  const size_t terms = (size_t)w->phase->taps * w->channels, of_part = blocks * BLOCK;
  for (unsigned part = 0; part < f->column_parts; part++)
    memset(to + part * of_part + terms * SIDE, 0, (of_part - terms * SIDE) * sizeof *to);
  if (w->channels % 2 == 0 && w->window <= TRANSPOSED / 2)
    pack_pairs(f, w, to, of_part);
  else
    pack_terms(f, w, to, of_part);
}

void mptl_conv_bf16_pack(const mptl_conv_bf16 *f, uint16_t *packed, const float *theta) {
  for (int k = 0; k < f->v.n_phases; k++) {
    const phase_blocks *b = &f->blocks[k];
#pragma omp parallel for num_threads(f->v.threads) schedule(static)
    for (size_t i = 0; i < column_tiles(f); i++) {
      const weights w = weights_at(&f->v, &f->v.phases[k], i * SIDE, theta);
      pack_columns(f, &w, b->n, packed + b->packed + i * b->n * f->column_parts * BLOCK);
    }
  }
}

/* ---- Operands ---- */

/* Some images, or some lines of one. */
typedef struct band {
  int image, images, line, lines;
  int rows; /* of each image, in memory; the first one is row line * in_stride_y of the padded image */
} band;

static band band_at(const mptl_conv_bf16 *f, int i) {
  const mptl_conv *v = &f->v;
  if (v->bands_of_image == 0) {
    const int from = (int)((int64_t)v->s.n * i / v->bands),
              end = (int)((int64_t)v->s.n * (i + 1) / v->bands);
    return (band){from, end - from, 0, (end - from) * v->lines, f->padded_rows};
  }
  const int n = v->bands_of_image, k = i % n, from = (int)((int64_t)v->lines * k / n),
            lines = (int)((int64_t)v->lines * (k + 1) / n) - from;
  return (band){i / n, 1, from, lines, rows_of_lines(v, lines)};
}

void mptl_conv_read(const mptl_conv_bf16 *f, const mptl_source *source, unsigned parts,
                    size_t offset, size_t columns, size_t step, size_t rows, uint16_t *to,
                    size_t to_step, size_t part) {
  float buffer[MPTL_TILE];
  if (parts == 1) {
    mptl_read_bf16_rows(source, offset, columns, step, rows, to, to_step);
    return;
  }
  for (size_t i = 0; i < rows; i++, offset += step, to += to_step)
    for (size_t at = 0, n; at < columns; at += n) {
      n = columns - at < MPTL_TILE ? columns - at : MPTL_TILE;
      f->kernels->split(to + at, to + at + part, mptl_read(source, offset + at, n, buffer), n);
    }
}

/* Numbers of a part of a band's operand. */
static size_t band_part(const mptl_conv_bf16 *f) {
  return image_bytes(f, f->v.band_rows) / f->row_parts / sizeof(uint16_t);
}

/* Decodes the band's operand, with zeros around it. */
static void read_band(const mptl_conv_bf16 *f, const band *b, const mptl_source *from,
                      uint16_t *to) {
  const mptl_conv *v = &f->v;
  const size_t row = (size_t)v->pitch * (size_t)v->c, left = (size_t)v->left * (size_t)v->c,
               own = (size_t)v->w * (size_t)v->c;
  for (int i = 0; i < b->images * b->rows; i++, to += row) {
    const int y = b->line * v->in_stride_y + i % b->rows - v->top;
    const bool inside = y >= 0 && y < v->h;
    for (unsigned part = 0; part < f->row_parts; part++) {
      uint16_t *at = to + part * band_part(f);
      memset(at, 0, (inside ? left : row) * sizeof *at);
      if (inside) memset(at + left + own, 0, (row - left - own) * sizeof *at);
    }
    const size_t line = (size_t)(b->image + i / b->rows) * (size_t)v->h + (size_t)y;
    if (inside)
      mptl_conv_read(f, from, f->row_parts, line * own, own, own, 1, to + left, own, band_part(f));
  }
}

/* ---- Computing ---- */

/* A pass that runs; a thread's memory. */
typedef struct run {
  const mptl_conv_bf16 *f;
  const mptl_source *operand;
  const mptl_sink *results;
  const uint16_t *packed;
  const float *bias;
} run;

typedef struct memory {
  uint16_t *operand, *blocks;
  float *tiles, *results;
  size_t *row, *to; /* of a chunk's pixels of a phase: windows, results */
} memory;

/* The first result of a line of a band. */
static size_t first_result(const mptl_conv *v, const band *b, int line) {
  const int y = b->line + line, image = b->image + y / v->lines;
  return ((size_t)image * (size_t)v->out_h + (size_t)(y % v->lines * v->out_stride_y)) *
         (size_t)v->out_w * (size_t)v->out_c;
}

/* Finds the pixels of a phase in lines [begin, end) of a band, and returns how many. The last ones
 * of their windows' places, up to whole tiles, are repeated. */
static size_t find_pixels(const mptl_conv *v, const mptl_conv_phase *p, const band *b, int begin,
                          int end, const memory *m) {
  const size_t base = first_result(v, b, begin);
  size_t n = 0;
  for (int i = begin; i < end; i++) {
    const int line = b->line + i, y = line % v->lines, image = line / v->lines;
    if (y >= p->rows) continue;
    size_t row = (size_t)(image * b->rows + (y - b->line) * v->in_stride_y) * (size_t)v->pitch *
                 (size_t)v->c;
    size_t to = first_result(v, b, i) - base +
                ((size_t)p->y0 * (size_t)v->out_w + (size_t)p->x0) * (size_t)v->out_c;
    for (int x = 0; x < p->columns; x++, n++) {
      m->row[n] = row, m->to[n] = to;
      row += (size_t)v->in_stride_x * (size_t)v->c;
      to += (size_t)v->out_stride_x * (size_t)v->out_c;
    }
  }
  for (size_t i = n; n > 0 && i % SIDE != 0; i++) m->row[i] = m->row[n - 1];
  return n;
}

/* Whether 16 windows are at equal distances. */
static bool is_regular(const size_t *row) {
  const size_t step = row[1] - row[0];
  for (int i = 2; i < SIDE; i++)
    if (row[i] - row[i - 1] != step) return false;
  return true;
}

/* Blocks [from, end) of 16 windows: where they are, or gathered at `to`. */
static mptl_bf16_rows rows_of_tile(const mptl_conv_bf16 *f, const phase_blocks *b,
                                   const size_t *row, size_t from, size_t end,
                                   const uint16_t *operand, uint16_t *to) {
  const size_t part = CHUNK_PIXELS * TERMS * f->piece;
  const mptl_bf16_run *last = &b->run[b->runs - 1];
  if (b->is_whole && is_regular(row))
    return (mptl_bf16_rows){operand + row[0], row[1] - row[0], band_part(f), b->place + from};
  for (unsigned p = 0; p < f->row_parts; p++) {
    if (end == b->n && last->to + last->count < TERMS)
      memset(to + p * part + (end - 1 - from) * BLOCK, 0, BLOCK * sizeof *to);
    f->kernels->gather(to + p * part, operand + p * band_part(f), row, b->run + b->first[from],
                       b->first[end] - b->first[from], from);
  }
  return (mptl_bf16_rows){to, TERMS, part, f->gathered};
}

/* Results of tiles of pixels, over blocks [from, end), for all columns. */
static void multiply(const run *r, const phase_blocks *b, const mptl_bf16_rows *rows, size_t tiles,
                     size_t from, size_t end, float *results) {
  const mptl_conv_bf16 *f = r->f;
  const size_t across = column_tiles(f), step = padded_columns(f);
  mptl_bf16_product p = {.blocks = end - from,
                         .row_parts = f->row_parts,
                         .column_parts = f->column_parts,
                         .column_part = b->n * BLOCK,
                         .step = step,
                         .end = from == 0 ? MPTL_CHAIN_STORE : MPTL_CHAIN_CONTINUE};
  for (size_t k = 0; k < across; k += ACROSS) {
    p.across = across - k < ACROSS ? 1 : ACROSS;
    for (size_t j = 0; j < p.across; j++)
      p.columns[j] = r->packed + b->packed + ((k + j) * f->column_parts * b->n + from) * BLOCK;
    for (size_t i = 0; i < tiles; i += MPTL_BF16_TILES) {
      p.down = tiles - i < MPTL_BF16_TILES ? 1 : MPTL_BF16_TILES;
      for (size_t t = 0; t < p.down; t++) {
        p.rows[t] = rows[i + t];
        for (size_t j = 0; j < p.across; j++)
          p.to[t][j] = results + (i + t) * SIDE * step + (k + j) * SIDE;
      }
      f->kernels->multiply(&p);
    }
  }
}

/* Results of a phase's pixels in lines [begin, end) of a band. */
static void compute_phase(const run *r, int phase, const band *b, int begin, int end,
                          const memory *m) {
  enum { TILES = CHUNK_PIXELS / SIDE };
  const mptl_conv_bf16 *f = r->f;
  const phase_blocks *blocks = &f->blocks[phase];
  mptl_bf16_rows rows[TILES];
  const size_t pixels = find_pixels(&f->v, &f->v.phases[phase], b, begin, end, m),
               tiles = (pixels + SIDE - 1) / SIDE, channels = (size_t)f->v.out_c;
  for (size_t tile = 0, n; tile < tiles; tile += n) {
    n = tiles - tile < TILES ? tiles - tile : TILES;
    for (size_t from = 0; from == 0 || from < blocks->n; from += f->piece) {
      const size_t past = blocks->n - from < f->piece ? blocks->n : from + f->piece;
      for (size_t i = 0; i < n && past > from; i++)
        rows[i] = rows_of_tile(f, blocks, m->row + (tile + i) * SIDE, from, past, m->operand,
                               m->blocks + i * f->piece * BLOCK);
      multiply(r, blocks, rows, n, from, past, m->tiles + tile * SIDE * padded_columns(f));
    }
  }
  for (size_t i = 0; i < pixels && moves_results(f); i++)
    memcpy(m->results + m->to[i], m->tiles + i * padded_columns(f), channels * sizeof(float));
}

/* A bias is in forward only, whose results of a chunk are whole pixels. */
static void add_bias(const mptl_conv *v, float *y, const float *bias, size_t n) {
  for (const float *end = y + n; y < end; y += v->out_c)
    for (int c = 0; c < v->out_c; c++) y[c] += bias[c];
}

/* Whether n results can be computed where they are stored: in binary32, in the order of the tiles,
 * and whole tiles. */
static bool stores_tiles(const run *r, size_t n) {
  return mptl_stores_floats(r->results) && !moves_results(r->f) &&
         n % (SIDE * (size_t)r->f->v.out_c) == 0;
}

static void compute_band(const run *r, const band *b, const memory *m, mptl_round_stats *stats) {
  const mptl_conv *v = &r->f->v;
  read_band(r->f, b, r->operand, m->operand);
  for (int begin = 0; begin < b->lines; begin += v->chunk_lines) {
    const int end = mptl_conv_least(begin + v->chunk_lines, b->lines);
    const size_t first = first_result(v, b, begin), n = first_result(v, b, end) - first;
    memory here = *m;
    if (stores_tiles(r, n)) here.tiles = (float *)r->results->data + first;
    float *results = moves_results(r->f) ? m->results : here.tiles;
    for (int k = 0; k < v->n_phases; k++) compute_phase(r, k, b, begin, end, &here);
    if (r->bias != NULL) add_bias(v, results, r->bias, n);
    for (size_t i = 0; i < n; i += MPTL_TILE)
      mptl_write(r->results, first + i, n - i < MPTL_TILE ? n - i : MPTL_TILE, results + i, stats);
  }
}

static void compute(const run *r, char *scratch) {
  const mptl_conv_bf16 *f = r->f;
  const areas a = areas_of(f);
#pragma omp parallel num_threads(f->v.threads)
  {
    char *own = scratch + (size_t)omp_get_thread_num() * a.bytes;
    size_t *places = (size_t *)(own + a.places);
    const memory m = {(uint16_t *)(own + a.operand),
                      (uint16_t *)(own + a.blocks),
                      (float *)(own + a.tiles),
                      (float *)(own + a.results),
                      places,
                      places + f->chunk_pixels};
    mptl_round_stats stats = {0};
    f->kernels->begin();
#pragma omp for schedule(dynamic) nowait
    for (int i = 0; i < f->v.bands; i++) {
      const band b = band_at(f, i);
      compute_band(r, &b, &m, &stats);
    }
    f->kernels->end();
#pragma omp critical(mptl_conv_stats)
    if (r->results->stats != NULL) mptl_stats_merge(r->results->stats, &stats);
  }
}

void mptl_conv_bf16_forward(const mptl_conv_bf16 *f, const mptl_sink *y, const mptl_source *x,
                            const uint16_t *packed, const float *bias, void *scratch) {
  compute(&(run){f, x, y, packed, bias}, scratch);
}

void mptl_conv_bf16_backward_data(const mptl_conv_bf16 *f, const mptl_sink *dx,
                                  const mptl_source *dy, const uint16_t *packed, void *scratch) {
  compute(&(run){f, dy, dx, packed, NULL}, scratch);
}

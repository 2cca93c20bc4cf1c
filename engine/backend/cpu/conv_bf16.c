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
#include <string.h>

enum {
  SIDE = MPTL_BF16_SIDE,
  TERMS = MPTL_BF16_TERMS,
  BLOCK = MPTL_BF16_BLOCK,
  ACROSS = MPTL_BF16_TILES,
  CHUNK_PIXELS = MPTL_CONV_PIXELS,
  BETWEEN = 192 /* rows no farther apart are decoded together, with what is between them: to decode
                   these elements takes no longer than to begin once more */
};

/* ---- Operands ---- */

void mptl_conv_read(const mptl_conv_bf16 *f, const mptl_source *source, unsigned parts,
                    size_t offset, size_t columns, size_t step, size_t rows, uint16_t *to,
                    size_t to_step, size_t part) {
  float buffer[MPTL_TILE];
  if (parts == 1) {
    mptl_read_bf16_rows(source, offset, columns, step, rows, to, to_step);
    return;
  }
  const bool near = columns <= MPTL_TILE && step <= columns + BETWEEN;
  const size_t together = near ? (MPTL_TILE - columns) / step + 1 : 1; /* rows */
  for (size_t n; rows > 0; rows -= n, offset += n * step, to += n * to_step) {
    n = rows < together ? rows : together;
    for (size_t at = 0, some; at < columns; at += some) {
      some = columns - at < MPTL_TILE ? columns - at : MPTL_TILE;
      const float *x = mptl_read(source, offset + at, (n - 1) * step + some, buffer);
      f->kernels->split(to + at, to + at + part, to_step, x, step, some, n);
    }
  }
}

/* Decodes the band's operand, with zeros around it. */
static void read_band(const mptl_conv_bf16 *f, const mptl_conv_band *b, const mptl_source *from,
                      uint16_t *to) {
  const mptl_conv *v = &f->v;
  const size_t row = (size_t)v->pitch * (size_t)v->c, left = (size_t)v->left * (size_t)v->c,
               own = (size_t)v->w * (size_t)v->c;
  for (int i = 0; i < b->images * b->rows; i++, to += row) {
    const int y = b->row + i % b->rows;
    const bool inside = y >= 0 && y < v->h;
    for (unsigned part = 0; part < f->row_parts; part++) {
      uint16_t *at = to + part * mptl_conv_band_part(f);
      memset(at, 0, (inside ? left : row) * sizeof *at);
      if (inside) memset(at + left + own, 0, (row - left - own) * sizeof *at);
    }
    const size_t line = (size_t)(b->image + i / b->rows) * (size_t)v->h + (size_t)y;
    if (inside)
      mptl_conv_read(f, from, f->row_parts, line * own, own, own, 1, to + left, own,
                     mptl_conv_band_part(f));
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
  size_t *row, *to; /* of a chunk's lines of a phase */
} memory;

/* The pixels of a phase in some lines of a band: where each line's windows and results begin. */
typedef struct pixels {
  const mptl_conv_phase *phase;
  const size_t *row, *to; /* of each line */
  size_t n;               /* pixels */
} pixels;

/* Finds a phase's pixels in lines [begin, end) of a band. */
static pixels find_pixels(const mptl_conv *v, const mptl_conv_phase *p, const mptl_conv_band *b,
                          int begin, int end, const memory *m) {
  const size_t base = mptl_conv_first_result(v, b, begin);
  size_t lines = 0;
  for (int i = begin; i < end; i++) {
    const int line = b->line + i, y = line % v->lines, image = line / v->lines;
    if (y >= p->rows) continue;
    m->row[lines] = (size_t)(image * b->rows + (y - b->line) * v->in_stride_y) * (size_t)v->pitch *
                    (size_t)v->c;
    m->to[lines++] = mptl_conv_first_result(v, b, i) - base +
                     ((size_t)p->y0 * (size_t)v->out_w + (size_t)p->x0) * (size_t)v->out_c;
  }
  return (pixels){p, m->row, m->to, lines * (size_t)p->columns};
}

/* Places of the windows of 16 pixels; behind the last one, its window is repeated. Returns the
 * distance of the windows, 0 if distances differ. */
static size_t find_windows(const mptl_conv *v, const pixels *at, size_t first, size_t *row) {
  const size_t columns = (size_t)at->phase->columns, step = (size_t)v->in_stride_x * (size_t)v->c;
  size_t line = first / columns, x = first % columns;
  bool regular = true;
  if (x + SIDE <= columns && first + SIDE <= at->n) {
    for (size_t i = 0; i < SIDE; i++) row[i] = at->row[line] + (x + i) * step;
    return step;
  }
  for (size_t i = 0; i < SIDE; i++) {
    row[i] = at->row[line] + x * step;
    regular = regular && (i < 2 || row[i] - row[i - 1] == row[1] - row[0]);
    if (first + i + 1 < at->n && ++x == columns) x = 0, line++;
  }
  return regular ? row[1] - row[0] : 0;
}

/* Blocks [from, end) of 16 windows: where they are, or gathered at `to`. */
static mptl_bf16_rows rows_of_tile(const mptl_conv_bf16 *f, const mptl_conv_blocks *b,
                                   const pixels *at, size_t first, size_t from, size_t end,
                                   const uint16_t *operand, uint16_t *to) {
  const size_t part = CHUNK_PIXELS * TERMS * f->piece;
  const mptl_bf16_run *last = &b->run[b->runs - 1];
  size_t row[SIDE];
  const size_t step = find_windows(&f->v, at, first, row);
  if (b->is_whole && step > 0)
    return (mptl_bf16_rows){operand + row[0], step, mptl_conv_band_part(f), b->place + from};
  for (unsigned p = 0; p < f->row_parts; p++) {
    if (end == b->n && last->to + last->count < TERMS)
      memset(to + p * part + (end - 1 - from) * BLOCK, 0, BLOCK * sizeof *to);
    f->kernels->gather(to + p * part, operand + p * mptl_conv_band_part(f), row,
                       b->run + b->first[from], b->first[end] - b->first[from], from);
  }
  return (mptl_bf16_rows){to, TERMS, part, f->gathered};
}

/* Results of tiles of pixels, over blocks [from, end), for all columns. */
static void multiply(const run *r, const mptl_conv_blocks *b, const mptl_bf16_rows *rows,
                     size_t tiles, size_t from, size_t end, float *results) {
  const mptl_conv_bf16 *f = r->f;
  const size_t across = mptl_conv_column_tiles(f), step = mptl_conv_bf16_columns(f);
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

/* Moves results of a phase from the tiles to their places in the chunk. */
static void move_results(const mptl_conv_bf16 *f, const pixels *at, const memory *m) {
  const mptl_conv *v = &f->v;
  const size_t channels = (size_t)v->out_c, columns = (size_t)at->phase->columns,
               step = (size_t)v->out_stride_x * channels;
  const float *from = m->tiles;
  if (v->n_phases == 1) {
    v->kernels->copy(m->results, channels, from, mptl_conv_bf16_columns(f), channels, at->n);
    return;
  }
  for (size_t i = 0; i < at->n; i++, from += mptl_conv_bf16_columns(f))
    memcpy(m->results + at->to[i / columns] + i % columns * step, from, channels * sizeof *from);
}

/* Results of a phase's pixels in lines [begin, end) of a band. */
static void compute_phase(const run *r, int phase, const mptl_conv_band *b, int begin, int end,
                          const memory *m) {
  enum { TILES = CHUNK_PIXELS / SIDE };
  const mptl_conv_bf16 *f = r->f;
  const mptl_conv_blocks *blocks = &f->blocks[phase];
  mptl_bf16_rows rows[TILES];
  const pixels at = find_pixels(&f->v, &f->v.phases[phase], b, begin, end, m);
  const size_t tiles = (at.n + SIDE - 1) / SIDE;
  for (size_t tile = 0, n; tile < tiles; tile += n) {
    n = tiles - tile < TILES ? tiles - tile : TILES;
    for (size_t from = 0; from == 0 || from < blocks->n; from += f->piece) {
      const size_t past = blocks->n - from < f->piece ? blocks->n : from + f->piece;
      for (size_t i = 0; i < n && past > from; i++)
        rows[i] = rows_of_tile(f, blocks, &at, (tile + i) * SIDE, from, past, m->operand,
                               m->blocks + i * f->piece * BLOCK);
      multiply(r, blocks, rows, n, from, past, m->tiles + tile * SIDE * mptl_conv_bf16_columns(f));
    }
  }
  if (mptl_conv_moves_results(f)) move_results(f, &at, m);
}

/* Whether n results can be computed where they are stored: in binary32, in the order of the tiles,
 * and whole tiles. */
static bool stores_tiles(const run *r, size_t n) {
  return mptl_stores_floats(r->results) && !mptl_conv_moves_results(r->f) &&
         n % (SIDE * (size_t)r->f->v.out_c) == 0;
}

static void compute_band(const run *r, const mptl_conv_band *b, const memory *m,
                         mptl_round_stats *stats) {
  const mptl_conv *v = &r->f->v;
  read_band(r->f, b, r->operand, m->operand);
  for (int begin = 0; begin < b->lines; begin += v->chunk_lines) {
    const int end = mptl_conv_least(begin + v->chunk_lines, b->lines);
    const size_t first = mptl_conv_first_result(v, b, begin),
                 n = mptl_conv_first_result(v, b, end) - first;
    memory here = *m;
    if (stores_tiles(r, n)) here.tiles = (float *)r->results->data + first;
    float *results = mptl_conv_moves_results(r->f) ? m->results : here.tiles;
    for (int k = 0; k < v->n_phases; k++) compute_phase(r, k, b, begin, end, &here);
    if (r->bias != NULL) mptl_conv_add_bias(v, results, r->bias, n);
    for (size_t i = 0; i < n; i += MPTL_TILE)
      mptl_write(r->results, first + i, n - i < MPTL_TILE ? n - i : MPTL_TILE, results + i, stats);
  }
}

static void compute(const run *r, char *scratch) {
  const mptl_conv_bf16 *f = r->f;
  const mptl_conv_bf16_areas a = mptl_conv_bf16_areas_of(f);
#pragma omp parallel num_threads(f->v.threads)
  {
    char *own = scratch + (size_t)omp_get_thread_num() * a.bytes;
    size_t *places = (size_t *)(own + a.places);
    const memory m = {(uint16_t *)(own + a.operand),
                      (uint16_t *)(own + a.blocks),
                      (float *)(own + a.tiles),
                      (float *)(own + a.results),
                      places,
                      places + f->v.chunk_lines};
    mptl_round_stats stats = {0};
    f->kernels->begin();
#pragma omp for schedule(dynamic) nowait
    for (int i = 0; i < f->v.bands; i++) {
      const mptl_conv_band b = mptl_conv_band_at(&f->v, i);
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

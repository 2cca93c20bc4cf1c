/* Backward by weights (conv.h): dweights and dbias, the sums over all images.
 *
 * A portion of the operands is prepared at a time, by all threads: x as [group of channels][region]
 * [image][row][x][packed_channels], where a region has that many channels of the group, so that a
 * tile's rows lie side by side; dy as [group][panel][pixel][column]. Each thread then computes its
 * own weights' sums of the portion, block by block. Operands that are like that in memory are read
 * there.
 *
 * Lines of dy are in the order of a chain: unit by unit; in a unit of several images the images'
 * first lines, their second lines, and so on. So the lines whose windows' row ky is a row of x are
 * side by side. Rows of x are copied in the same order; where they have no columns of padding,
 * lines that follow each other are one span.
 */
#include <omp.h>
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "core/memory.h"

enum { SUMS_AT_ONCE = 32 };

/* ---- Sizes ---- */

/* Regions of a group; rows of its sums: weights of one output channel. */
static size_t regions(const mptl_conv *v) {
  const size_t n = (size_t)v->packed_channels;
  return ((size_t)v->group_in + n - 1) / n;
}
static size_t window(const mptl_conv *v) { return (size_t)v->s.kh * (size_t)v->s.kw; }
static size_t weight_rows(const mptl_conv *v) { return window(v) * (size_t)v->group_in; }

/* A row of x with its columns of padding. */
static size_t wide(const mptl_conv *v) { return (size_t)v->w + 2 * (size_t)v->left; }

static size_t operand_bytes(const mptl_conv *v) {
  return mptl_aligned((size_t)v->groups * regions(v) * (size_t)v->portion_rows * wide(v) *
                      (size_t)v->packed_channels * sizeof(float));
}
static size_t panels_bytes(const mptl_conv *v) {
  return mptl_aligned((size_t)v->groups * mptl_conv_padded_columns(v) * (size_t)v->portion_lines *
                      (size_t)v->out_w * sizeof(float));
}
static size_t sums_bytes(const mptl_conv *v) {
  return mptl_aligned((size_t)v->groups * weight_rows(v) * mptl_conv_padded_columns(v) *
                      sizeof(float));
}
static size_t lines_bytes(const mptl_conv *v) {
  return mptl_aligned((size_t)v->portion_lines * sizeof(size_t));
}
/* Of each thread: a row of x or of dy. */
static size_t row_bytes(const mptl_conv *v) {
  const size_t x = mptl_conv_row_floats(v), dy = (size_t)v->out_w * (size_t)v->out_c;
  return mptl_aligned((x > dy ? x : dy) * sizeof(float));
}

size_t mptl_conv_weights_scratch_bytes(const mptl_conv *v) {
  if (v->by_channel) return mptl_conv_channels_scratch_bytes(v);
  return operand_bytes(v) + panels_bytes(v) + sums_bytes(v) + 2 * lines_bytes(v) +
         (size_t)v->threads * row_bytes(v);
}

/* ---- Preparing ---- */

/* Whole images, or some lines of one image. */
typedef struct portion {
  int image, images, line, lines;
  int row, rows; /* of the operand, of each image */
} portion;

/* Moves to the next portion; false after the last one. At first it is all 0. */
static bool next_portion(const mptl_conv *v, portion *p) {
  if (v->portion_lines < v->out_h) { /* parts of images */
    p->line += p->lines;
    if (p->line == v->out_h) p->line = 0, p->image++;
    p->images = 1;
    p->lines = mptl_conv_least(v->portion_lines, v->out_h - p->line);
    p->row = mptl_conv_first_row(v, p->line);
    p->rows = mptl_conv_end_row(v, p->line, p->lines) - p->row;
  } else {
    p->image += p->images;
    p->images = mptl_conv_least(v->portion_units * v->unit_images, v->s.n - p->image);
    p->lines = p->images * v->out_h;
    p->rows = v->h;
  }
  return p->image < v->s.n;
}

/* The number of images of the unit that has line i of a portion. */
static int images_of_unit(const mptl_conv *v, const portion *p, int i) {
  const int unit = i / (v->unit_images * v->out_h);
  return mptl_conv_least(v->unit_images, p->images - unit * v->unit_images);
}

/* Which line of which image, counted in the portion, is line i of the portion. */
typedef struct place {
  int image, y;
} place;

static place line_at(const mptl_conv *v, const portion *p, int i) {
  const int unit_lines = v->unit_images * v->out_h, images = images_of_unit(v, p, i);
  return (place){i / unit_lines * v->unit_images + i % unit_lines % images,
                 p->line + i % unit_lines / images};
}

/* Where a row of an image of the portion is among the copied rows. */
static size_t copied_row(const mptl_conv *v, const portion *p, int image, int row) {
  const int first = image / v->unit_images * v->unit_images,
            images = mptl_conv_least(v->unit_images, p->images - first);
  /* A row before the first one: numbers wrap around. */
  return (size_t)(first * p->rows + row * images + image - first);
}

/* Splits the channels of a row of the operand into the regions, with pixels of zeros at its ends. */
static void split_row(const mptl_conv *v, const float *row, float *to, size_t region_floats) {
  const size_t width = (size_t)v->packed_channels, n = regions(v), edge = (size_t)v->left * width;
  for (int g = 0; g < v->groups; g++)
    for (size_t i = 0; i < n; i++, to += region_floats) {
      const size_t left = (size_t)v->group_in - i * width, count = left < width ? left : width;
      const float *from = row + (size_t)g * (size_t)v->group_in + i * width;
      float *out = to + edge;
      memset(to, 0, edge * sizeof *to);
      v->kernels->copy(out, width, from, (size_t)v->c, count, (size_t)v->w);
      memset(out + (size_t)v->w * width, 0, edge * sizeof *out);
    }
}

/* Splits the channels of a line of dy into panels of `pixels` pixels. */
static void split_line(const mptl_conv *v, const float *line, float *panels, size_t at,
                       size_t pixels) {
  const int n = mptl_conv_panels(v);
  for (int g = 0; g < v->groups; g++)
    for (int i = 0; i < n; i++) {
      const mptl_conv_panel panel = mptl_conv_panel_at(v, g, i);
      const float *from = line + (size_t)g * (size_t)v->columns + panel.begin;
      float *to = panels + panel.place * pixels + at * panel.width;
      v->kernels->copy(to, panel.width, from, (size_t)v->out_c, panel.columns, (size_t)v->out_w);
    }
}

/* The operands of a portion, prepared. */
typedef struct prepared {
  float *area[2];                /* for x and dy */
  const float *operand, *panels; /* there, or in place */
  size_t *line, *term;  /* of its lines: places of their first pixels' windows in a region, and
                           of their first pixels in a panel */
  size_t region_floats; /* of the operand */
} prepared;

/* Whether all of x is one region without padding, and dy one panel, and in binary32. */
static bool x_in_place(const mptl_conv *v, const mptl_source *x) {
  return x->size == sizeof(float) && v->left == 0 && v->packed_channels == v->c;
}
static bool dy_in_place(const mptl_conv *v, const mptl_source *dy) {
  return dy->size == sizeof(float) && v->unit_images == 1 &&
         mptl_conv_panel_at(v, 0, 0).width == (size_t)v->out_c;
}

/* Called by all threads, each with its own record and buffer for a row. */
static void prepare(const mptl_conv *v, const portion *p, const mptl_source *x,
                    const mptl_source *dy, prepared *to, float *buffer) {
  const size_t row = wide(v) * (size_t)v->packed_channels, ow = (size_t)v->out_w;
  const size_t of_row = mptl_conv_row_floats(v), of_line = ow * (size_t)v->out_c,
               pixels = (size_t)p->lines * ow;
  const size_t first_row = (size_t)p->image * (size_t)v->h + (size_t)p->row,
               first_line = (size_t)p->image * (size_t)v->out_h + (size_t)p->line;
  to->region_floats = (size_t)p->images * (size_t)p->rows * row;
  to->operand = x_in_place(v, x) ? (const float *)x->data + first_row * of_row : to->area[0];
  to->panels = dy_in_place(v, dy) ? (const float *)dy->data + first_line * of_line : to->area[1];
  if (to->operand == to->area[0])
#pragma omp for schedule(static) nowait
    for (int i = 0; i < p->images * p->rows; i++) {
      const size_t from = first_row + (size_t)(i / p->rows * v->h + i % p->rows);
      split_row(v, mptl_read(x, from * of_row, of_row, buffer),
                to->area[0] + copied_row(v, p, i / p->rows, i % p->rows) * row, to->region_floats);
    }
#pragma omp for schedule(static)
  for (int i = 0; i < p->lines; i++) {
    const place at = line_at(v, p, i);
    const size_t from = (size_t)(p->image + at.image) * (size_t)v->out_h + (size_t)at.y;
    if (to->panels == to->area[1])
      split_line(v, mptl_read(dy, from * of_line, of_line, buffer), to->area[1], (size_t)i * ow,
                 pixels);
    /* Windows that begin above the portion's first row: numbers wrap around. */
    const int first = at.y * v->in_stride_y - v->top - p->row;
    to->line[i] = row * (to->operand == to->area[0] ? copied_row(v, p, at.image, first)
                                                    : (size_t)(at.image * p->rows + first));
    to->term[i] = (size_t)i * ow;
  }
}

/* ---- Sums ---- */

/* Rows of a group's sums are in the order of ky, regions, kx, channels. */
static size_t rows_of_ky(const mptl_conv *v) { return (size_t)v->s.kw * (size_t)v->group_in; }

/* Channels of a region that are in the sum of a column. */
static size_t channels_of_region(const mptl_conv *v, size_t region) {
  const size_t width = (size_t)v->packed_channels, left = (size_t)v->group_in - region * width;
  return left < width ? left : width;
}

/* Places in the prepared operand of rows [from, from + n) of those of a group and ky; line: from a
 * window's first row to its row ky. */
static void find_rows(const mptl_conv *v, int group, size_t line, size_t from, unsigned n,
                      size_t region_floats, size_t *row) {
  const size_t width = (size_t)v->packed_channels, kw = (size_t)v->s.kw,
               pixel = (size_t)v->s.dw * width;
  size_t region = from / (kw * width), left = from % (kw * width);
  size_t channels = channels_of_region(v, region), kx = left / channels, channel = left % channels;
  for (unsigned i = 0; i < n; i++) {
    row[i] = ((size_t)group * regions(v) + region) * region_floats + line + kx * pixel + channel;
    if (++channel < channels) continue;
    channel = 0;
    if (++kx < kw) continue;
    kx = 0;
    channels = channels_of_region(v, ++region);
  }
}

/* What a thread computes: rows [row, row + n) of a panel and ky. */
typedef struct tile {
  int group;
  mptl_conv_panel panel;
  size_t ky, row;
  unsigned n;
} tile;

/* Tiles of the rows of a ky, and rows of a tile: about as many in each. */
static size_t tiles_of_ky(const mptl_conv *v) {
  const int panels = mptl_conv_panels(v),
            vectors = (mptl_conv_vectors(v) + panels - 1) / panels; /* of the widest panel */
  const size_t most = v->kernels->rows[vectors - 1];
  return (rows_of_ky(v) + most - 1) / most;
}
static size_t tile_rows(const mptl_conv *v) {
  return (rows_of_ky(v) + tiles_of_ky(v) - 1) / tiles_of_ky(v);
}
static size_t all_tiles(const mptl_conv *v) {
  return (size_t)v->groups * (size_t)mptl_conv_panels(v) * (size_t)v->s.kh * tiles_of_ky(v);
}

static tile tile_at(const mptl_conv *v, size_t i) {
  const size_t tiles = tiles_of_ky(v), kh = (size_t)v->s.kh, panels = (size_t)mptl_conv_panels(v),
               most = tile_rows(v);
  tile t = {.group = (int)(i / tiles / kh / panels), .ky = i / tiles % kh, .row = i % tiles * most};
  t.panel = mptl_conv_panel_at(v, t.group, (int)(i / tiles / kh % panels));
  t.n = (unsigned)(rows_of_ky(v) - t.row < most ? rows_of_ky(v) - t.row : most);
  return t;
}

/* The lines of a block of a portion. Moves to the next one; false after the last one. At first it is
 * all 0. */
typedef struct block {
  int line, lines;
  bool first; /* of all */
} block;

static bool next_block(const mptl_conv *v, const portion *p, block *b) {
  const int unit_lines = v->unit_images * v->out_h;
  b->line += b->lines;
  if (b->line >= p->lines) return false;
  const int end = b->line / unit_lines * unit_lines + images_of_unit(v, p, b->line) * v->out_h;
  b->lines = mptl_conv_least(v->block_lines, mptl_conv_least(end, p->lines) - b->line);
  b->first = p->image == 0 && p->line == 0 && b->line == 0;
  return true;
}

/* The lines of a block whose windows' row ky is a row of the operand. */
static void lines_inside(const mptl_conv *v, const portion *p, const block *b, int ky, int *from,
                         int *end) {
  const int up = v->top - ky * v->s.dh;
  *from = b->line, *end = b->line + b->lines;
  while (*from < *end && line_at(v, p, *from).y * v->in_stride_y < up) ++*from;
  while (*from < *end && line_at(v, p, *end - 1).y * v->in_stride_y - up >= v->h) --*end;
}

/* The chains of some lines for panels: one span, if the windows' rows follow each other. The panel
 * is left out. */
static mptl_chain chain_of(const mptl_conv *v, const prepared *from, int line, int lines) {
  const size_t stride = (size_t)v->in_stride_x * (size_t)v->packed_channels,
               length = (size_t)v->out_w;
  bool merges = true;
  for (int i = line + 1; i < line + lines && merges; i++)
    merges = from->line[i] == from->line[i - 1] + length * stride;
  return (mptl_chain){.a = from->operand,
                      .span = from->line + line,
                      .term = from->term + line,
                      .spans = merges ? lines > 0 : (size_t)lines,
                      .length = merges ? (size_t)lines * length : length,
                      .stride = stride};
}

/* Adds the chains of a portion's blocks to sums [group][panel][row][column], or stores the first
 * ones: each thread its own tiles. */
static void add_chains(const mptl_conv *v, const portion *p, const prepared *from, float *sums) {
  const size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads(),
               all = all_tiles(v);
  block b = {0};
  while (next_block(v, p, &b)) {
    size_t ky = (size_t)v->s.kh; /* whose chain this is */
    mptl_chain chain = {.a = NULL};
    const size_t images =
                     (size_t)(from->operand == from->area[0] ? images_of_unit(v, p, b.line) : 1),
                 of_row = images * wide(v) * (size_t)v->packed_channels;
    for (size_t i = all * thread / threads; i < all * (thread + 1) / threads; i++) {
      size_t row[MPTL_PRODUCT_ROWS], to[MPTL_PRODUCT_ROWS];
      const tile t = tile_at(v, i);
      if (t.ky != ky) {
        int line, end;
        lines_inside(v, p, &b, (int)(ky = t.ky), &line, &end);
        chain = chain_of(v, from, line, end - line);
      }
      chain.b = from->panels + t.panel.place * (size_t)p->lines * (size_t)v->out_w;
      find_rows(v, t.group, t.ky * (size_t)v->s.dh * of_row, t.row, t.n, from->region_floats, row);
      for (unsigned r = 0; r < t.n; r++) to[r] = (t.ky * rows_of_ky(v) + t.row + r) * t.panel.width;
      v->kernels->tile(sums + t.panel.place * weight_rows(v), to, &chain, row, t.n, t.panel.width,
                       b.first ? MPTL_CHAIN_STORE : MPTL_CHAIN_ADD);
    }
  }
}

/* Adds the blocks' sums of dy by channel: a chain of additions for each. */
static void add_bias_sums(const mptl_conv *v, const portion *p, float *dbias, const float *panels) {
  const int n = mptl_conv_panels(v);
  const size_t ow = (size_t)v->out_w, pixels = (size_t)p->lines * ow;
#pragma omp for collapse(2) schedule(static) nowait
  for (int g = 0; g < v->groups; g++)
    for (int i = 0; i < n; i++) {
      const mptl_conv_panel panel = mptl_conv_panel_at(v, g, i);
      float *to = dbias + g * v->columns + (int)panel.begin;
      block b = {0};
      while (next_block(v, p, &b)) {
        const float *dy = panels + panel.place * pixels + (size_t)b.line * ow * panel.width;
        for (size_t from = 0; from < panel.columns; from += SUMS_AT_ONCE) {
          const size_t left = panel.columns - from,
                       count = left < SUMS_AT_ONCE ? left : SUMS_AT_ONCE;
          float sum[SUMS_AT_ONCE] = {0};
          for (size_t k = 0; k < (size_t)b.lines * ow; k++)
            for (size_t c = 0; c < count; c++) sum[c] += dy[k * panel.width + from + c];
          for (size_t c = 0; c < count; c++)
            to[from + c] = b.first ? sum[c] : to[from + c] + sum[c];
        }
      }
    }
}

/* From sums to [oc][ic / groups][kh][kw]: a ky and region at a time, which stay in the cache. */
static void unpack_sums(const mptl_conv *v, float *dweights, const float *sums) {
  const int n = mptl_conv_panels(v);
  const size_t rows = weight_rows(v), kw = (size_t)v->s.kw, kh = (size_t)v->s.kh;
#pragma omp for collapse(2) schedule(static)
  for (int g = 0; g < v->groups; g++)
    for (int i = 0; i < n; i++) {
      const mptl_conv_panel panel = mptl_conv_panel_at(v, g, i);
      const float *from = sums + panel.place * rows;
      for (size_t ky = 0; ky < kh; ky++)
        for (size_t region = 0; region < regions(v); region++) {
          const size_t width = channels_of_region(v, region);
          float *to = dweights + ((size_t)g * (size_t)v->columns + panel.begin) * rows +
                      region * (size_t)v->packed_channels * kh * kw + ky * kw;
          for (size_t j = 0; j < panel.columns; j++)
            for (size_t k = 0; k < width; k++)
              for (size_t kx = 0; kx < kw; kx++)
                to[j * rows + k * kh * kw + kx] = from[(kx * width + k) * panel.width + j];
          from += kw * width * panel.width;
        }
    }
}

void mptl_conv_backward_weights(const mptl_conv *v, float *dweights, float *dbias,
                                const mptl_source *x, const mptl_source *dy, void *scratch) {
  if (v->by_channel) {
    mptl_conv_channels_backward_weights(v, dweights, dbias, x, dy, scratch);
    return;
  }
  char *at = scratch;
  prepared to = {.area = {(float *)at, (float *)(at + operand_bytes(v))}};
  float *sums = (float *)(at += operand_bytes(v) + panels_bytes(v));
  to.line = (size_t *)(at += sums_bytes(v));
  to.term = (size_t *)(at += lines_bytes(v));
  at += lines_bytes(v);
#pragma omp parallel num_threads(v->threads) firstprivate(to)
  {
    float *own = (float *)(at + (size_t)omp_get_thread_num() * row_bytes(v));
    portion p = {0};
    while (next_portion(v, &p)) {
      prepare(v, &p, x, dy, &to, own);
      if (dbias != NULL) add_bias_sums(v, &p, dbias, to.panels);
      add_chains(v, &p, &to, sums);
#pragma omp barrier
    }
    unpack_sums(v, dweights, sums);
  }
}

/* Backward by weights (conv.h): dweights and dbias, the sums over all images.
 *
 * Each thread has its own share of the weights. It prepares a portion of the operands at a time, as
 * far as the share needs it: x as [group of channels][region][image][row][x][packed_channels], where
 * a region has that many channels of the group, so that a tile's rows lie side by side; dy as
 * [panel][pixel][column]. Then it adds the portion's sums, block by block. Operands that are like
 * that in memory are read there. So some threads prepare the same, but none waits for another one.
 *
 * Lines of dy are in the order of a chain: unit by unit; in a unit of several images the images'
 * first lines, their second lines, and so on. So the lines whose windows' row ky is a row of x are
 * side by side. Rows of x are copied in the same order; where they have no columns of padding,
 * lines that follow each other are one span.
 */
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "core/memory.h"

enum { SUMS_AT_ONCE = 32 };

/* ---- Sizes ---- */

/* Regions of a group; rows of its sums: weights of one output channel, in the order of ky, regions,
 * kx, channels; those of a ky. */
static size_t regions(const mptl_conv *v) {
  const size_t n = (size_t)v->packed_channels;
  return ((size_t)v->group_in + n - 1) / n;
}
static size_t weight_rows(const mptl_conv *v) {
  return (size_t)v->s.kh * (size_t)v->s.kw * (size_t)v->group_in;
}
static size_t rows_of_ky(const mptl_conv *v) { return (size_t)v->s.kw * (size_t)v->group_in; }

/* A row of x with its columns of padding. */
static size_t wide(const mptl_conv *v) { return (size_t)v->w + 2 * (size_t)v->left; }

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

/* ---- Shares ---- */

/* Panels [panel, panel_end) of all groups, and of each of them tiles [tile, tile_end), of all ky:
 * tile index * kh + ky. These read some regions of some groups. */
typedef struct share {
  size_t panel, panel_end, tile, tile_end;
  size_t group, groups, region, regions;
} share;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t all_panels(const mptl_conv *v) {
  return (size_t)v->groups * (size_t)mptl_conv_panels(v);
}
static size_t all_tiles(const mptl_conv *v) { return tiles_of_ky(v) * (size_t)v->s.kh; }

/* The share of one of rows x columns threads; empty for further threads. */
static share share_of(const mptl_conv *v, size_t thread, size_t rows, size_t columns) {
  const size_t row = thread / columns, column = thread % columns, kh = (size_t)v->s.kh,
               panels = (size_t)mptl_conv_panels(v),
               of_region = (size_t)v->s.kw * (size_t)v->packed_channels;
  if (row >= rows) return (share){0};
  share s = {.panel = all_panels(v) * column / columns,
             .panel_end = all_panels(v) * (column + 1) / columns,
             .tile = all_tiles(v) * row / rows,
             .tile_end = all_tiles(v) * (row + 1) / rows};
  if (s.panel == s.panel_end || s.tile == s.tile_end) return (share){0};
  const size_t end = least((s.tile_end - 1) / kh + 1, tiles_of_ky(v)) * tile_rows(v);
  s.group = s.panel / panels;
  s.groups = (s.panel_end - 1) / panels + 1 - s.group;
  s.region = s.tile / kh * tile_rows(v) / of_region;
  s.regions = least((end + of_region - 1) / of_region, regions(v)) - s.region;
  return s;
}

/* How threads share out the work: the grid whose first share takes the fewest cycles, about. A tile
 * takes one for each row and pixel; to prepare a pixel takes some for each region and panel. */
typedef struct grid {
  size_t rows, columns;
} grid;

static grid share_out(const mptl_conv *v) {
  const size_t threads = (size_t)v->threads;
  grid best = {1, 1};
  size_t least_cycles = SIZE_MAX;
  for (size_t rows = 1; rows <= threads; rows++) {
    const size_t columns = threads / rows, panels = (all_panels(v) + columns - 1) / columns,
                 tiles = (all_tiles(v) + rows - 1) / rows;
    const share last = share_of(v, rows * columns - 1, rows, columns); /* of the largest ones */
    const size_t cycles = panels * (tiles * tile_rows(v) + 6) + last.groups * last.regions * 4;
    if (cycles < least_cycles) best = (grid){rows, columns}, least_cycles = cycles;
  }
  return best;
}

/* ---- Memory ---- */

/* Of each thread: its part of a portion of x and dy, places of lines and of rows of sums, and a row
 * of x or of dy. Of all threads: sums. */
typedef struct areas {
  size_t panels, lines, terms, rows, row, bytes, sums;
} areas;

static areas areas_of(const mptl_conv *v, grid g) {
  size_t most_regions = 0, most_columns = 0;
  for (size_t t = 0; t < g.rows * g.columns; t++) {
    const share s = share_of(v, t, g.rows, g.columns);
    const size_t n = s.groups * s.regions,
                 columns = (s.panel_end - s.panel) * (size_t)v->vectors * v->kernels->lanes;
    if (n > most_regions) most_regions = n;
    if (columns > most_columns) most_columns = columns;
  }
  const size_t x = (size_t)v->portion_rows * wide(v) * (size_t)v->packed_channels,
               dy = (size_t)v->portion_lines * (size_t)v->out_w, of_row = mptl_conv_row_floats(v),
               of_line = (size_t)v->out_w * (size_t)v->out_c;
  areas a = {.panels = mptl_aligned(most_regions * x * sizeof(float))};
  a.lines = a.panels + mptl_aligned(most_columns * dy * sizeof(float));
  a.terms = a.lines + mptl_aligned((size_t)v->portion_lines * sizeof(size_t));
  a.rows = a.terms + mptl_aligned((size_t)v->portion_lines * sizeof(size_t));
  a.row = a.rows + mptl_aligned(rows_of_ky(v) * sizeof(size_t));
  a.bytes = a.row + mptl_aligned((of_row > of_line ? of_row : of_line) * sizeof(float));
  a.sums = mptl_aligned((size_t)v->groups * weight_rows(v) * mptl_conv_padded_columns(v) *
                        sizeof(float));
  return a;
}

size_t mptl_conv_weights_scratch_bytes(const mptl_conv *v, size_t operand_size) {
  if (v->by_channel) return mptl_conv_channels_scratch_bytes(v, operand_size);
  const areas a = areas_of(v, share_out(v));
  return a.sums + (size_t)v->threads * a.bytes;
}

/* ---- Preparing ---- */

/* Whole images, or some lines of one image. */
typedef struct portion {
  int image, images, line, lines;
  int row, rows; /* of the operand, of each image */
} portion;

/* The portion's first row of x and first line of dy, counted from those of the first image. */
static size_t first_row(const mptl_conv *v, const portion *p) {
  return (size_t)p->image * (size_t)v->h + (size_t)p->row;
}
static size_t first_line(const mptl_conv *v, const portion *p) {
  return (size_t)p->image * (size_t)v->out_h + (size_t)p->line;
}

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

/* Splits the channels of a row of x into the share's regions, with pixels of zeros at its ends. */
static void split_row(const mptl_conv *v, const share *own, const float *row, float *to,
                      size_t region_floats) {
  const size_t width = (size_t)v->packed_channels, edge = (size_t)v->left * width;
  for (size_t g = 0; g < own->groups; g++)
    for (size_t i = own->region; i < own->region + own->regions; i++, to += region_floats) {
      const size_t left = (size_t)v->group_in - i * width, count = left < width ? left : width;
      const float *from = row + (own->group + g) * (size_t)v->group_in + i * width;
      float *out = to + edge;
      memset(to, 0, edge * sizeof *to);
      v->kernels->copy(out, width, from, (size_t)v->c, count, (size_t)v->w);
      memset(out + (size_t)v->w * width, 0, edge * sizeof *out);
    }
}

/* Panel i of all groups, and its group. */
static mptl_conv_panel panel_at(const mptl_conv *v, size_t i, size_t *group) {
  const size_t panels = (size_t)mptl_conv_panels(v);
  *group = i / panels;
  return mptl_conv_panel_at(v, (int)*group, (int)(i % panels));
}

/* How many columns are in front of a panel in a share. */
static size_t place_in_share(const mptl_conv *v, const share *own, const mptl_conv_panel *panel) {
  size_t group;
  return panel->place - panel_at(v, own->panel, &group).place;
}

/* Splits the channels of a line of dy into the share's panels of `pixels` pixels. */
static void split_line(const mptl_conv *v, const share *own, const float *line, float *panels,
                       size_t at, size_t pixels) {
  for (size_t i = own->panel; i < own->panel_end; i++) {
    size_t group;
    const mptl_conv_panel panel = panel_at(v, i, &group);
    const float *from = line + group * (size_t)v->columns + panel.begin;
    float *to = panels + place_in_share(v, own, &panel) * pixels + at * panel.width;
    v->kernels->copy(to, panel.width, from, (size_t)v->out_c, panel.columns, (size_t)v->out_w);
  }
}

/* The operands of a portion, prepared. */
typedef struct prepared {
  float *area[2];                /* for x and dy */
  const float *operand, *panels; /* there, or in place */
  size_t *line, *term;  /* of its lines: places of their first pixels' windows in a region, and
                           of their first pixels in a panel */
  size_t *row;          /* of the rows of a ky: their places in a line of the operand */
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

/* Prepares a portion for a share; buffer: for a row. */
static void prepare(const mptl_conv *v, const share *own, const portion *p, const mptl_source *x,
                    const mptl_source *dy, prepared *to, float *buffer) {
  const size_t row = wide(v) * (size_t)v->packed_channels, ow = (size_t)v->out_w;
  const size_t of_row = mptl_conv_row_floats(v), of_line = ow * (size_t)v->out_c,
               pixels = (size_t)p->lines * ow;
  to->region_floats = (size_t)p->images * (size_t)p->rows * row;
  to->operand = x_in_place(v, x) ? (const float *)x->data + first_row(v, p) * of_row : to->area[0];
  to->panels =
      dy_in_place(v, dy) ? (const float *)dy->data + first_line(v, p) * of_line : to->area[1];
  for (int i = 0; to->operand == to->area[0] && i < p->images * p->rows; i++) {
    const size_t from = first_row(v, p) + (size_t)(i / p->rows * v->h + i % p->rows);
    split_row(v, own, mptl_read(x, from * of_row, of_row, buffer),
              to->area[0] + copied_row(v, p, i / p->rows, i % p->rows) * row, to->region_floats);
  }
  for (int i = 0; i < p->lines; i++) {
    const place at = line_at(v, p, i);
    const size_t from = (size_t)(p->image + at.image) * (size_t)v->out_h + (size_t)at.y;
    if (to->panels == to->area[1])
      split_line(v, own, mptl_read(dy, from * of_line, of_line, buffer), to->area[1],
                 (size_t)i * ow, pixels);
    /* Windows that begin above the portion's first row: numbers wrap around. */
    const int first = at.y * v->in_stride_y - v->top - p->row;
    to->line[i] = row * (to->operand == to->area[0] ? copied_row(v, p, at.image, first)
                                                    : (size_t)(at.image * p->rows + first));
    to->term[i] = (size_t)i * ow;
  }
}

/* ---- Fetching ahead ---- */

/* Lines of the cache behind a portion of x and of dy: the next portion. Each tile fetches some, if
 * these are few: more at once would wait for each other. */
typedef struct ahead {
  uintptr_t at[2];
  size_t left[2], for_a_tile[2];
} ahead;

enum { LINE_BYTES = 64, MOST_FOR_A_TILE = 32 };

static ahead ahead_of(const mptl_conv *v, const share *own, const portion *p, const mptl_source *x,
                      const mptl_source *dy) {
  const size_t rows = (size_t)(p->images * p->rows), lines = (size_t)p->lines,
               of_row = mptl_conv_row_floats(v) * x->size,
               of_line = (size_t)v->out_w * (size_t)v->out_c * dy->size,
               blocks = (lines + (size_t)v->block_lines - 1) / (size_t)v->block_lines,
               tiles = blocks * (own->panel_end - own->panel) * (own->tile_end - own->tile);
  ahead a = {.at = {(uintptr_t)x->data + (first_row(v, p) + rows) * of_row,
                    (uintptr_t)dy->data + (first_line(v, p) + lines) * of_line},
             .left = {rows * of_row / LINE_BYTES, lines * of_line / LINE_BYTES}};
  for (int k = 0; k < 2; k++) a.for_a_tile[k] = a.left[k] / tiles + 1;
  if (a.for_a_tile[0] + a.for_a_tile[1] > MOST_FOR_A_TILE) a.left[0] = a.left[1] = 0;
  return a;
}

static void fetch(ahead *a) {
  for (int k = 0; k < 2; k++)
    for (size_t i = 0; i < a->for_a_tile[k] && a->left[k] > 0; i++, a->left[k]--) {
      __builtin_prefetch((const void *)a->at[k], 0, 2); /* for the second-level cache */
      a->at[k] += LINE_BYTES;
    }
}

/* ---- Sums ---- */

/* Channels of a region that are in the sum of a column. */
static size_t channels_of_region(const mptl_conv *v, size_t region) {
  const size_t width = (size_t)v->packed_channels, left = (size_t)v->group_in - region * width;
  return left < width ? left : width;
}

/* Finds the places of a share's rows of a ky in the first group of the prepared operand, counted
 * from a line. */
static void find_rows(const mptl_conv *v, const share *own, prepared *to) {
  const size_t width = (size_t)v->packed_channels, pixel = (size_t)v->s.dw * width;
  size_t i = own->region * (size_t)v->s.kw * width;
  for (size_t region = 0; region < own->regions; region++)
    for (size_t kx = 0; kx < (size_t)v->s.kw; kx++)
      for (size_t c = 0; c < channels_of_region(v, own->region + region); c++)
        to->row[i++] = region * to->region_floats + kx * pixel + c;
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

/* Adds the chains of a block for a panel to sums [row][column], or stores the first ones. of_row: from
 * a row of the prepared operand to the next one of the same image. */
static void add_panel(const mptl_conv *v, const share *own, const portion *p, const prepared *from,
                      const block *b, size_t i, size_t of_row, float *sums, ahead *next) {
  const size_t kh = (size_t)v->s.kh, most = tile_rows(v);
  size_t group, to[MPTL_PRODUCT_ROWS];
  const mptl_conv_panel panel = panel_at(v, i, &group);
  const size_t first_region = (group - own->group) * own->regions * from->region_floats;
  for (size_t r = 0; r < MPTL_PRODUCT_ROWS; r++) to[r] = r * panel.width;
  for (size_t ky = 0; ky < kh; ky++) {
    int line, end;
    lines_inside(v, p, b, (int)ky, &line, &end);
    mptl_chain chain = chain_of(v, from, line, end - line);
    chain.a += first_region + ky * (size_t)v->s.dh * of_row;
    chain.b = from->panels + place_in_share(v, own, &panel) * (size_t)p->lines * (size_t)v->out_w;
    for (size_t tile = (own->tile + kh - 1 - ky) / kh; tile * kh + ky < own->tile_end; tile++) {
      const size_t first = tile * most, n = least(rows_of_ky(v) - first, most);
      fetch(next);
      float *c = sums + panel.place * weight_rows(v) + (ky * rows_of_ky(v) + first) * panel.width;
      v->kernels->tile(c, to, &chain, from->row + first, (unsigned)n, panel.width,
                       b->first ? MPTL_CHAIN_STORE : MPTL_CHAIN_ADD);
    }
  }
}

/* The same for a portion's blocks and the share's panels; sums: [group][panel][row][column]. */
static void add_chains(const mptl_conv *v, const share *own, const portion *p, const prepared *from,
                       float *sums, ahead *next) {
  const size_t row = wide(v) * (size_t)v->packed_channels;
  for (block b = {0}; next_block(v, p, &b);) {
    const bool copied = from->operand == from->area[0];
    const size_t images = copied ? (size_t)images_of_unit(v, p, b.line) : 1;
    for (size_t i = own->panel; i < own->panel_end; i++)
      add_panel(v, own, p, from, &b, i, images * row, sums, next);
  }
}

/* Adds the blocks' sums of dy by channel: a chain of additions for each. */
static void add_bias_sums(const mptl_conv *v, const share *own, const portion *p,
                          const float *panels, float *dbias) {
  const size_t ow = (size_t)v->out_w, pixels = (size_t)p->lines * ow;
  for (size_t i = own->panel; i < own->panel_end; i++) {
    size_t group;
    const mptl_conv_panel panel = panel_at(v, i, &group);
    float *to = dbias + group * (size_t)v->columns + panel.begin;
    for (block b = {0}; next_block(v, p, &b);) {
      const float *dy =
          panels + place_in_share(v, own, &panel) * pixels + (size_t)b.line * ow * panel.width;
      for (size_t from = 0; from < panel.columns; from += SUMS_AT_ONCE) {
        const size_t count = least(panel.columns - from, SUMS_AT_ONCE);
        float sum[SUMS_AT_ONCE] = {0};
        for (size_t k = 0; k < (size_t)b.lines * ow; k++)
          for (size_t c = 0; c < count; c++) sum[c] += dy[k * panel.width + from + c];
        for (size_t c = 0; c < count; c++) to[from + c] = b.first ? sum[c] : to[from + c] + sum[c];
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

/* The same where operands have changed places: rows of sums are those of the weights. */
static void unpack_swapped(const mptl_conv *v, float *dweights, const float *sums) {
  const size_t rows = weight_rows(v), n = (size_t)mptl_conv_panels(v);
#pragma omp for collapse(2) schedule(static)
  for (size_t row = 0; row < rows; row++)
    for (size_t i = 0; i < n; i++) {
      const mptl_conv_panel panel = mptl_conv_panel_at(v, 0, (int)i);
      memcpy(dweights + row * (size_t)v->columns + panel.begin,
             sums + panel.place * rows + row * panel.width, panel.columns * sizeof *sums);
    }
}

void mptl_conv_backward_weights(const mptl_conv *v, float *dweights, float *dbias,
                                const mptl_source *x, const mptl_source *dy, void *scratch) {
  if (v->by_channel) {
    mptl_conv_channels_backward_weights(v, dweights, dbias, x, dy, scratch);
    return;
  }
  const mptl_source *read = v->swapped ? dy : x, *packed = v->swapped ? x : dy;
  const grid g = share_out(v);
  const areas a = areas_of(v, g);
  float *sums = scratch;
#pragma omp parallel num_threads(v->threads)
  {
    const size_t thread = (size_t)omp_get_thread_num();
    char *at = (char *)scratch + a.sums + thread * a.bytes;
    prepared to = {.area = {(float *)at, (float *)(at + a.panels)},
                   .line = (size_t *)(at + a.lines),
                   .term = (size_t *)(at + a.terms),
                   .row = (size_t *)(at + a.rows)};
    /* OpenMP may run fewer threads than there are shares. */
    for (size_t i = thread; i < g.rows * g.columns; i += (size_t)omp_get_num_threads()) {
      const share own = share_of(v, i, g.rows, g.columns);
      for (portion p = {0}; own.tile < own.tile_end && next_portion(v, &p);) {
        prepare(v, &own, &p, read, packed, &to, (float *)(at + a.row));
        find_rows(v, &own, &to);
        if (dbias != NULL && own.tile == 0) add_bias_sums(v, &own, &p, to.panels, dbias);
        ahead next = ahead_of(v, &own, &p, read, packed);
        add_chains(v, &own, &p, &to, sums, &next);
      }
    }
#pragma omp barrier
    if (v->swapped)
      unpack_swapped(v, dweights, sums);
    else
      unpack_sums(v, dweights, sums);
  }
}

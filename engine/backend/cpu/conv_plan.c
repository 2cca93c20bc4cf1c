#include "backend/cpu/conv_plan.h"

#include <stdlib.h>
#include <unistd.h>

enum {
  PACKED_CHANNELS = 8, /* see packed_channels */
  SET_CHANNELS = 64,
  BLOCK_PIXELS = 256, /* of a block in backward by weights, at least: this is in its definition */
  CHUNK_PIXELS = 96,  /* of a phase, about; twice as many of images of at most SMALL_IMAGE pixels,
                         whose pixels have many kinds of windows */
  SMALL_IMAGE = 64,
  WEIGHTS_VECTORS = 2 /* of a panel in backward by weights, so that a block of it stays in the
                         first-level cache */
};

static int ceil_div(int a, int b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

/* The taps of a phase along one axis, and where in the operand the first pixel's are. */
typedef struct axis {
  int n, *k, *at;
} axis;

static bool make_axis(axis *a, int window) {
  *a = (axis){.k = malloc((size_t)window * sizeof *a->k),
              .at = malloc((size_t)window * sizeof *a->at)};
  return a->k != NULL && a->at != NULL;
}

static void free_axis(axis *a) {
  free(a->k);
  free(a->at);
}

static void forward_taps(axis *a, int window, int dilation) {
  for (a->n = 0; a->n < window; a->n++) a->k[a->n] = a->n, a->at[a->n] = a->n * dilation;
}

/* Backward by data: result pixel i reads tap k, if (i + padding - k dilation) / stride is whole, at
 * that place; border: of the operand. The last tap comes first, so that places ascend. */
static void backward_taps(axis *a, int window, int dilation, int stride, int padding, int border,
                          int i) {
  a->n = 0;
  for (int k = window - 1; k >= 0; k--) {
    int at = i + padding - k * dilation;
    if (at % stride != 0) continue;
    a->k[a->n] = k;
    a->at[a->n++] = border + at / stride;
  }
}

/* The taps along x of the window of column i that are inside the operand. */
static mptl_conv_range columns_inside(const mptl_conv *v, const axis *x, int i) {
  if (v->is_padded) return (mptl_conv_range){0, x->n};
  return mptl_conv_inside(x->at, x->n, i * v->in_stride_x - v->left, v->w);
}

/* The columns of a phase from `first` on whose windows have the same columns inside as that of
 * `first`, and their spans. Taps side by side in memory are one span. */
static mptl_status make_kind(const mptl_conv *v, const mptl_conv_phase *p, const axis *y,
                             const axis *x, int first, mptl_conv_kind *kind) {
  const mptl_conv_range taps = columns_inside(v, x, first);
  *kind = (mptl_conv_kind){.x = first, .end = first + 1};
  while (kind->end < p->columns && mptl_conv_same(columns_inside(v, x, kind->end), taps))
    kind->end++;
  const int n = taps.end - taps.from;
  bool merges = v->s.groups == 1;
  for (int j = taps.from + 1; j < taps.end; j++) merges = merges && x->at[j] == x->at[j - 1] + 1;
  kind->spans_of_row = merges ? n > 0 : (size_t)n;
  kind->length = (size_t)v->group_in * (merges ? (size_t)n : 1);
  const size_t spans = (size_t)y->n * kind->spans_of_row;
  kind->span = malloc((spans + 1) * sizeof *kind->span);
  kind->term = malloc((spans + 1) * sizeof *kind->term);
  if (kind->span == NULL || kind->term == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  size_t span = 0;
  for (int i = 0; i < y->n; i++)
    for (int j = taps.from; j < taps.end; j += merges ? n : 1) {
      kind->span[span] = ((size_t)y->at[i] * (size_t)v->pitch + (size_t)x->at[j]) * (size_t)v->c;
      kind->term[span++] = (size_t)(i * x->n + j) * (size_t)v->group_in;
    }
  return MPTL_OK;
}

/* The taps and spans of a phase. */
static mptl_status fill_phase(mptl_conv *v, mptl_conv_phase *p, const axis *y, const axis *x) {
  if (y->n > 0 && y->at[y->n - 1] >= v->reach) v->reach = y->at[y->n - 1] + 1;
  p->window_rows = y->n;
  p->taps = y->n * x->n;
  p->at_y = malloc(((size_t)y->n + 1) * sizeof *p->at_y);
  p->tap = malloc(((size_t)p->taps + 1) * sizeof *p->tap);
  p->kind = calloc((size_t)p->columns, sizeof *p->kind);
  if (p->at_y == NULL || p->tap == NULL || p->kind == NULL)
    return mptl_fail(MPTL_ENOMEM, "no memory");
  for (int i = 0; i < y->n; i++) {
    p->at_y[i] = y->at[i];
    for (int j = 0; j < x->n; j++) p->tap[i * x->n + j] = y->k[i] * v->s.kw + x->k[j];
  }
  for (int at = 0; at < p->columns; at = p->kind[p->kinds++].end)
    MPTL_TRY(make_kind(v, p, y, x, at, &p->kind[p->kinds]));
  return MPTL_OK;
}

static void count_packed(mptl_conv *v) {
  const size_t of_tap = (size_t)v->groups * mptl_conv_padded_columns(v) * (size_t)v->group_in;
  for (int i = 0; i < v->n_phases; i++) {
    v->phases[i].packed = v->packed_floats;
    v->packed_floats += of_tap * (size_t)v->phases[i].taps;
  }
}

static mptl_status plan_phases(mptl_conv *v, axis *y, axis *x) {
  const mptl_conv_shape *s = &v->s;
  const bool data = v->pass == MPTL_BACKWARD_DATA;
  v->phases = calloc(data ? (size_t)s->sh * (size_t)s->sw : 1, sizeof *v->phases);
  if (v->phases == NULL || !make_axis(y, s->kh) || !make_axis(x, s->kw))
    return mptl_fail(MPTL_ENOMEM, "no memory");
  if (!data) {
    mptl_conv_phase *p = &v->phases[v->n_phases++];
    *p = (mptl_conv_phase){.rows = s->oh, .columns = s->ow};
    forward_taps(y, s->kh, s->dh);
    forward_taps(x, s->kw, s->dw);
    return fill_phase(v, p, y, x);
  }
  for (int y0 = 0; y0 < s->sh && y0 < s->ih; y0++)
    for (int x0 = 0; x0 < s->sw && x0 < s->iw; x0++) {
      mptl_conv_phase *p = &v->phases[v->n_phases++];
      *p = (mptl_conv_phase){.y0 = y0,
                             .x0 = x0,
                             .rows = (s->ih - y0 + s->sh - 1) / s->sh,
                             .columns = (s->iw - x0 + s->sw - 1) / s->sw};
      backward_taps(y, s->kh, s->dh, s->sh, s->ph, v->top, y0);
      backward_taps(x, s->kw, s->dw, s->sw, s->pw, v->left, x0);
      MPTL_TRY(fill_phase(v, p, y, x));
    }
  return MPTL_OK;
}

static mptl_status make_phases(mptl_conv *v) {
  axis y = {0}, x = {0};
  mptl_status status = plan_phases(v, &y, &x);
  free_axis(&y);
  free_axis(&x);
  if (status == MPTL_OK) count_packed(v);
  return status;
}

/* A share of the second-level cache: of a panel's piece, and of a band's or portion's operands. */
static size_t cache_floats(int share) {
  long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return (bytes > 0 ? (size_t)bytes : 512 << 10) / sizeof(float) / (size_t)share;
}

/* Operand rows that n lines of an image read, at most. */
static int rows_of_lines(const mptl_conv *v, int n) {
  return mptl_conv_least((n - 1) * v->in_stride_y + v->reach, v->h);
}

/* Forward, backward by data: bands whose operands are a quarter of the cache, and chunks. All
 * threads get some. */
static void make_bands(mptl_conv *v) {
  const size_t most = cache_floats(4), row = mptl_conv_row_floats(v), image = row * (size_t)v->h;
  const int threads = v->threads;
  if (image <= most) {
    const int images = image == 0 || most / image > (size_t)v->s.n ? v->s.n : (int)(most / image);
    const int bands = ((v->s.n + images - 1) / images + threads - 1) / threads * threads;
    v->bands = mptl_conv_least(bands, v->s.n);
    v->band_lines = (v->s.n + v->bands - 1) / v->bands * v->lines;
    v->band_rows = (v->s.n + v->bands - 1) / v->bands * v->h;
  } else {
    int lines = v->lines;
    while (lines > 1 && (size_t)rows_of_lines(v, lines) * row > most) lines--;
    v->bands_of_image = (v->lines + lines - 1) / lines;
    v->bands = v->s.n * v->bands_of_image;
    v->band_lines = (v->lines + v->bands_of_image - 1) / v->bands_of_image;
    v->band_rows = rows_of_lines(v, v->band_lines);
  }
  const bool small = v->lines * v->phases[0].columns <= SMALL_IMAGE;
  const int pixels = v->band_lines * v->phases[0].columns,
            of_chunk = small ? 2 * CHUNK_PIXELS : CHUNK_PIXELS,
            chunks = (pixels + of_chunk / 2) / of_chunk;
  v->chunk_lines = chunks > 1 ? (v->band_lines + chunks - 1) / chunks : v->band_lines;
}

/* Backward by weights: blocks, and portions whose operands are about a sixteenth of the cache. */
static void make_blocks(mptl_conv *v) {
  const size_t most = cache_floats(16);
  const int pixels = v->out_h * v->out_w;
  v->unit_images = mptl_conv_least((BLOCK_PIXELS + pixels - 1) / pixels, v->s.n);
  v->block_lines =
      pixels < BLOCK_PIXELS ? v->unit_images * v->out_h : (BLOCK_PIXELS + v->out_w - 1) / v->out_w;
  const size_t row = mptl_conv_row_floats(v) + (size_t)v->out_w * (size_t)v->out_c,
               unit = (size_t)v->unit_images * row * (size_t)v->h;
  const int units = (v->s.n + v->unit_images - 1) / v->unit_images;
  v->portion_units = unit > most ? 1 : mptl_conv_least((int)(most / unit), units);
  v->portion_lines = v->portion_units * v->unit_images * v->out_h;
  v->portion_rows = v->portion_units * v->unit_images * v->h;
  if (unit > most && v->unit_images == 1) {
    int blocks = (v->out_h + v->block_lines - 1) / v->block_lines;
    while (blocks > 1 && (size_t)rows_of_lines(v, blocks * v->block_lines) * row > most) blocks--;
    v->portion_lines = mptl_conv_least(blocks * v->block_lines, v->out_h);
    v->portion_rows = rows_of_lines(v, v->portion_lines);
  }
}

/* Backward by weights: how many channels of the operand are side by side. A tile's rows are some of
 * these at some pixels of the window. With windows of one pixel all of them, as in memory, unless
 * pixels are so far apart that a block's pixels fall into few sets of the first-level cache. */
static int packed_channels(const mptl_conv *v) {
  const bool all = v->s.kh == 1 && v->s.kw == 1 &&
                   (v->group_in <= SET_CHANNELS || v->group_in % SET_CHANNELS != 0);
  return all ? v->group_in : PACKED_CHANNELS;
}

/* Pixels of a row with columns of zeros, up to the last one of a window. */
static int padded_width(const mptl_conv *v) {
  const mptl_conv_shape *s = &v->s;
  const int own = v->left + v->w,
            windows = v->pass == MPTL_BACKWARD_DATA
                          ? ceil_div(s->iw, s->sw) + v->left + (s->sw - 1 + s->pw) / s->sw
                          : (s->ow - 1) * s->sw + (s->kw - 1) * s->dw + 1;
  return own > windows ? own : windows;
}

/* The shape of the operand that is read in windows and of the results. */
static void set_shape(mptl_conv *v) {
  const mptl_conv_shape *s = &v->s;
  v->in_stride_y = v->in_stride_x = v->out_stride_y = v->out_stride_x = 1;
  v->by_channel = s->groups > 1 && s->groups == s->ic && s->groups == s->oc;
  v->groups = v->by_channel ? 1 : s->groups;
  if (v->pass == MPTL_BACKWARD_DATA) {
    /* Windows reach rows of dy from ceil((ph - (kh - 1) dh) / sh) on. */
    const int before_y = -ceil_div(s->ph - (s->kh - 1) * s->dh, s->sh),
              before_x = -ceil_div(s->pw - (s->kw - 1) * s->dw, s->sw);
    v->top = before_y > 0 ? before_y : 0;
    v->left = before_x > 0 ? before_x : 0;
    v->h = s->oh, v->w = s->ow, v->c = s->oc;
    v->group_in = s->oc / s->groups, v->columns = s->ic / s->groups;
    v->out_stride_y = s->sh, v->out_stride_x = s->sw;
    v->out_h = s->ih, v->out_w = s->iw, v->out_c = s->ic;
  } else {
    v->top = s->ph, v->left = s->pw;
    v->h = s->ih, v->w = s->iw, v->c = s->ic;
    v->group_in = s->ic / s->groups, v->columns = s->oc / s->groups;
    v->in_stride_y = s->sh, v->in_stride_x = s->sw;
    v->out_h = s->oh, v->out_w = s->ow, v->out_c = s->oc;
  }
  if (v->by_channel) v->columns = v->out_c;
  v->pitch = v->is_padded ? padded_width(v) : v->w;
  v->lines = ceil_div(v->out_h, v->out_stride_y);
}

mptl_status mptl_conv_plan(mptl_conv *v) {
  set_shape(v);
  v->piece_floats = cache_floats(4);
  v->vectors = v->kernels->vectors;
  if (v->pass != MPTL_BACKWARD_WEIGHTS) {
    MPTL_TRY(make_phases(v));
    if (!v->is_padded) make_bands(v);
    return MPTL_OK;
  }
  v->reach = (v->s.kh - 1) * v->s.dh + 1;
  v->vectors = WEIGHTS_VECTORS;
  v->packed_channels = packed_channels(v);
  make_blocks(v);
  return MPTL_OK;
}

void mptl_conv_release(mptl_conv *v) {
  for (int i = 0; i < v->n_phases; i++) {
    mptl_conv_phase *p = &v->phases[i];
    for (int k = 0; p->kind != NULL && k < p->columns; k++) {
      free(p->kind[k].span);
      free(p->kind[k].term);
    }
    free(p->kind);
    free(p->tap);
    free(p->at_y);
  }
  free(v->phases);
}

mptl_conv_band mptl_conv_band_at(const mptl_conv *v, int i) {
  if (v->bands_of_image == 0) {
    const int from = (int)((int64_t)v->s.n * i / v->bands),
              end = (int)((int64_t)v->s.n * (i + 1) / v->bands);
    mptl_conv_band b = {from, end - from, 0, (end - from) * v->lines, 0, v->h};
    if (v->is_padded) b.row = -v->top, b.rows = mptl_conv_padded_rows(v, v->lines);
    return b;
  }
  const int n = v->bands_of_image, k = i % n, from = (int)((int64_t)v->lines * k / n),
            lines = (int)((int64_t)v->lines * (k + 1) / n) - from;
  mptl_conv_band b = {.image = i / n, .images = 1, .line = from, .lines = lines};
  if (v->is_padded) {
    b.row = from * v->in_stride_y - v->top;
    b.rows = mptl_conv_padded_rows(v, lines);
  } else {
    b.row = mptl_conv_first_row(v, from);
    b.rows = mptl_conv_end_row(v, from, lines) - b.row;
  }
  return b;
}

size_t mptl_conv_first_result(const mptl_conv *v, const mptl_conv_band *b, int line) {
  const int y = b->line + line, image = b->image + y / v->lines;
  return ((size_t)image * (size_t)v->out_h + (size_t)(y % v->lines * v->out_stride_y)) *
         (size_t)v->out_w * (size_t)v->out_c;
}

void mptl_conv_add_bias(const mptl_conv *v, float *y, const float *bias, size_t n) {
  for (const float *end = y + n; y < end; y += v->out_c)
    for (int c = 0; c < v->out_c; c++) y[c] += bias[c];
}

/* Tiles of matrix products (kernels/cpu/products.h). All results of a tile stay in registers; a
 * vector of columns is loaded once and multiplied by one number of each row. */
#include "kernels/cpu/products.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/table.h"
#include "kernels/cpu/vec.h"

#define ROWS_4(X, v) X(1, v) X(2, v) X(3, v) X(4, v)
#define ROWS_6(X, v) ROWS_4(X, v) X(5, v) X(6, v)
#define ROWS_8(X, v) ROWS_6(X, v) X(7, v) X(8, v)
#define ROWS_11(X, v) ROWS_8(X, v) X(9, v) X(10, v) X(11, v)
#define ROWS_12(X, v) ROWS_11(X, v) X(12, v)

/* Columns of a vector, the rows of tiles of 1, 2, ... vectors, the tiles that there are, the
 * multiply-add of vectors, and how an assembler operand names a register. The results of a tile, a
 * row of columns and one number fit into the registers, and so do the rows' addresses: of 12 rows
 * and 2 vectors GCC keeps some in vectors, which costs a tenth. The more rows, the fewer loads of
 * columns; the more columns, the fewer loads of single numbers; the processor can do as many loads
 * as multiply-adds, and less is better. */
#if defined(MPTL_ISA_avx512)
enum { LANES = 16, ROWS_OF_1 = 12, ROWS_OF_2 = 11, ROWS_OF_3 = 8, VECTORS = 3 };
#define TILES(X) ROWS_12(X, 1) ROWS_11(X, 2) ROWS_8(X, 3)
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#define REGISTER "+v"
#elif defined(MPTL_ISA_avx2)
enum { LANES = 8, ROWS_OF_1 = 12, ROWS_OF_2 = 6, ROWS_OF_3 = 0, VECTORS = 2 };
#define TILES(X) ROWS_12(X, 1) ROWS_6(X, 2)
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#define REGISTER "+x"
#elif defined(MPTL_ISA_neon)
enum { LANES = 4, ROWS_OF_1 = 12, ROWS_OF_2 = 12, ROWS_OF_3 = 8, VECTORS = 3 };
#define TILES(X) ROWS_12(X, 1) ROWS_12(X, 2) ROWS_8(X, 3)
/* In assembler: GCC 12 assumes that vfmaq_f32 reads memory, and stores all results each time. Of a
 * number, the instruction takes lane 0. */
#define NEON_MULTIPLY_ADD(a, lanes, b, c)                                 \
  ({                                                                      \
    vf sum = (c);                                                         \
    __asm__("fmla %0.4s, %1.4s, %2." lanes : "+w"(sum) : "w"(b), "w"(a)); \
    sum;                                                                  \
  })
#define MULTIPLY_ADD(a, b, c) NEON_MULTIPLY_ADD(a, "4s", b, c)
#define ADD_MULTIPLE(a, b, c) NEON_MULTIPLY_ADD(a, "s[0]", b, c)
#define REGISTER "+w"
#else
enum { LANES = 1, ROWS_OF_1 = 4, ROWS_OF_2 = 4, ROWS_OF_3 = 0, VECTORS = 2 };
#define TILES(X) ROWS_4(X, 1) ROWS_4(X, 2)
#define MULTIPLY_ADD(a, b, c) ((vf){fmaf((a)[0], (b)[0], (c)[0])})
#define REGISTER "+m"
#endif

/* A vector of binary32, and one anywhere in an array. */
typedef float vf __attribute__((vector_size(LANES * sizeof(float))));
typedef float vf_in_array
    __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

static inline vf load(const float *p) { return *(const vf_in_array *)p; }
static inline void store(float *p, vf x) { *(vf_in_array *)p = x; }
static inline vf same(float x) { return x - (vf){0}; } /* in all lanes */

/* A number by which a row's columns are multiplied: c + a b. */
#ifdef ADD_MULTIPLE
typedef float factor;
static inline factor load_factor(const float *p) { return *p; }
#else
typedef vf factor;
static inline factor load_factor(const float *p) { return same(*p); }
#define ADD_MULTIPLE(a, b, c) MULTIPLY_ADD(a, b, c)
#endif

/* The first n lanes only, n less than LANES: memory behind them is not touched. */
#if MPTL_VEC
static inline vf load_part(const float *p, size_t n) { return (vf)v_load_first(p, n); }
static inline void store_part(float *p, vf x, size_t n) { v_store_first(p, (vu)x, n); }
#else
static inline vf load_part(const float *p, size_t n) {
  vf x = {0};
  for (size_t i = 0; i < n; i++) x[i] = p[i];
  return x;
}
static inline void store_part(float *p, vf x, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = x[i];
}
#endif

/* n: lanes, all or fewer. */
static inline __attribute__((always_inline)) vf load_lanes(const float *p, size_t n) {
  return n < LANES ? load_part(p, n) : load(p);
}
static inline __attribute__((always_inline)) void store_lanes(float *p, vf x, size_t n) {
  if (n < LANES)
    store_part(p, x, n);
  else
    store(p, x);
}

/* Rows of columns that are fetched ahead: a panel comes from the second-level cache, too late for
 * the processor's own fetching. */
enum { AHEAD = 8 };

enum { MOST_ROWS = ROWS_OF_1, FULL_ROWS = VECTORS == 3 ? ROWS_OF_3 : ROWS_OF_2 };
_Static_assert(MOST_ROWS <= (int)MPTL_PRODUCT_ROWS && VECTORS <= (int)MPTL_PRODUCT_VECTORS,
               "a tile fits into arrays");

/* Where the chains of rows begin, as addresses: row[r] may wrap around, but not together with a
 * span. With the rows' addresses in registers, a span is one more number to add. */
static inline __attribute__((always_inline)) void find_rows(uintptr_t *at, const mptl_chain *chain,
                                                            const size_t *row, unsigned rows) {
  for (unsigned r = 0; r < rows; r++) at[r] = (uintptr_t)chain->a + row[r] * sizeof(float);
}
static inline __attribute__((always_inline)) const float *address(uintptr_t at) {
  return (const float *)at;
}

/* The tile for constant numbers of rows and vectors, so that the results are registers. last: the
 * lanes of the last vector that are columns. */
static inline __attribute__((always_inline)) void compute(
    float *c, const size_t *to, const mptl_chain *chain, const size_t *row, const unsigned rows,
    const unsigned vectors, size_t last, mptl_chain_end end, const bool fetch_next) {
  vf results[MOST_ROWS][VECTORS];
  uintptr_t a[MOST_ROWS];
  const size_t stride = chain->stride * sizeof(float), length = chain->length * stride;
  find_rows(a, chain, row, rows);
  uintptr_t next = a[rows - 1] + length;
  if (end == MPTL_CHAIN_ADD)
    for (unsigned r = 0; r < rows; r++)
      for (unsigned v = 0; v < vectors; v++) __builtin_prefetch(c + to[r] + v * LANES, 1);
  for (unsigned r = 0; r < rows; r++)
    for (unsigned v = 0; v < vectors; v++)
      results[r][v] = end == MPTL_CHAIN_CONTINUE
                          ? load_lanes(c + to[r] + v * LANES, v + 1 < vectors ? LANES : last)
                          : same(0.0f);
  for (size_t t = 0; t < chain->spans; t++) {
    const float *b = chain->b + chain->term[t] * vectors * LANES;
    /* Read from memory each time: GCC would keep it in a vector, and move it from there. */
    const volatile size_t stop = chain->span[t] * sizeof(float) + length;
    for (size_t at = chain->span[t] * sizeof(float); at != stop;
         at += stride, b += vectors * LANES, next += rows * sizeof(float)) {
      vf columns[VECTORS];
      if (fetch_next) __builtin_prefetch(address(next));
      for (unsigned v = 0; v < vectors; v++) __builtin_prefetch(b + (AHEAD * vectors + v) * LANES);
      for (unsigned v = 0; v < vectors; v++) columns[v] = load(b + v * LANES);
      for (unsigned r = 0; r < rows; r++) {
        const factor x = load_factor(address(a[r] + at));
        for (unsigned v = 0; v < vectors; v++)
          results[r][v] = ADD_MULTIPLE(x, columns[v], results[r][v]);
      }
    }
  }
  for (unsigned r = 0; r < rows; r++)
    for (unsigned v = 0; v < vectors; v++) {
      float *p = c + to[r] + v * LANES;
      const size_t n = v + 1 < vectors ? LANES : last;
      store_lanes(p, end == MPTL_CHAIN_ADD ? load_lanes(p, n) + results[r][v] : results[r][v], n);
    }
}

typedef void tile_fn(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                     unsigned n, size_t last, mptl_chain_end end);

/* n tiles, one below the other. With fetch_next the loop over terms has one more instruction, which
 * costs other tiles up to a tenth: so there are functions of two kinds. */
#define TILE_OF(name, r, v, fetch_next)                                                            \
  static void name(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,         \
                   unsigned n, size_t last, mptl_chain_end end) {                                  \
    for (; n > 0; n--, to += r, row += r) compute(c, to, chain, row, r, v, last, end, fetch_next); \
  }
#define TILE(r, v)                     \
  TILE_OF(tile_##r##_##v, r, v, false) \
  TILE_OF(fetching_tile_##r##_##v, r, v, true)
#define ENTRY(r, v) [r - 1][v - 1] = {tile_##r##_##v, fetching_tile_##r##_##v},

TILES(TILE)
static tile_fn *const tiles[MOST_ROWS][VECTORS][2] = {TILES(ENTRY)};

/* Rows in tiles of about as many: `larger` tiles of rows + 1, then `n - larger` of rows. */
typedef struct split {
  unsigned n, larger, rows;
} split;

static split split_rows(unsigned rows, unsigned most) {
  const unsigned n = (rows + most - 1) / most;
  return (split){n, rows % n, rows / n};
}

static void tile(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                 unsigned rows, size_t columns, mptl_chain_end end) {
  static const unsigned most[] = {ROWS_OF_1, ROWS_OF_2, ROWS_OF_3};
  const size_t vectors = (columns + LANES - 1) / LANES, last = columns - (vectors - 1) * LANES;
  const split s = split_rows(rows, most[vectors - 1]);
  if (s.larger > 0)
    tiles[s.rows][vectors - 1][chain->fetch_next](c, to, chain, row, s.larger, last, end);
  to += s.larger * (s.rows + 1), row += s.larger * (s.rows + 1);
  tiles[s.rows - 1][vectors - 1][chain->fetch_next](c, to, chain, row, s.n - s.larger, last, end);
}

/* ---- Depthwise ---- */

enum { CHANNEL_ROWS = 9 }; /* at once, at most */

/* n columns from j on, at most a vector. */
static inline __attribute__((always_inline)) void compute_channels(float *c, const size_t *to,
                                                                   const mptl_chain *chain,
                                                                   const size_t *row,
                                                                   const unsigned rows, size_t j,
                                                                   size_t n) {
  vf results[CHANNEL_ROWS];
  uintptr_t a[CHANNEL_ROWS];
  find_rows(a, chain, row, rows);
  for (unsigned r = 0; r < rows; r++) a[r] += j * sizeof(float), results[r] = same(0.0f);
  for (size_t t = 0; t < chain->spans; t++) {
    const size_t at = chain->span[t] * sizeof(float);
    const vf column = load_lanes(chain->b + chain->term[t] * chain->step + j, n);
    for (unsigned r = 0; r < rows; r++)
      results[r] = MULTIPLY_ADD(load_lanes(address(a[r] + at), n), column, results[r]);
  }
  for (unsigned r = 0; r < rows; r++) store_lanes(c + to[r] + j, results[r], n);
}

typedef void channels_fn(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                         unsigned n, size_t columns);

/* n tiles, each with all columns: memory is read more or less in order. */
#define CHANNELS(r, unused)                                                                        \
  static void channels_##r(float *c, const size_t *to, const mptl_chain *chain, const size_t *row, \
                           unsigned n, size_t columns) {                                           \
    for (; n > 0; n--, to += r, row += r) {                                                        \
      size_t j = 0;                                                                                \
      for (; j + LANES <= columns; j += LANES) compute_channels(c, to, chain, row, r, j, LANES);   \
      if (j < columns) compute_channels(c, to, chain, row, r, j, columns - j);                     \
    }                                                                                              \
  }
#define CHANNELS_ENTRY(r, unused) [r - 1] = channels_##r,
#define CHANNEL_TILES(X) ROWS_8(X, ) X(9, )

CHANNEL_TILES(CHANNELS)
static channels_fn *const channel_tiles[CHANNEL_ROWS] = {CHANNEL_TILES(CHANNELS_ENTRY)};

static void channel_tile(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                         unsigned rows, size_t columns) {
  const split s = split_rows(rows, CHANNEL_ROWS);
  const unsigned first = s.larger * (s.rows + 1);
  if (s.larger > 0) channel_tiles[s.rows](c, to, chain, row, s.larger, columns);
  channel_tiles[s.rows - 1](c, to + first, chain, row + first, s.n - s.larger, columns);
}

/* ---- Depthwise, backward by weights ---- */

enum { CHANNEL_VECTORS = 3 }; /* at once: as many chains hide the latency of a multiply-add */

/* Pixels [from, end) of a line, for `taps` weights and some vectors of channels. inside: all pixels
 * of x that these meet are there. */
static inline __attribute__((always_inline)) void add_pixels(vf results[][CHANNEL_VECTORS],
                                                             const mptl_channel_line *l, int kx,
                                                             const int taps, const unsigned vectors,
                                                             const bool inside, size_t j, size_t n,
                                                             int from, int end) {
  const float *dy = l->dy + (size_t)from * l->channels + j;
  for (int i = from; i < end; i++, dy += l->channels) {
    const int at = i * l->stride + kx * l->dilation - l->left;
    vf columns[CHANNEL_VECTORS];
    for (unsigned v = 0; v < vectors; v++) columns[v] = load_lanes(dy + v * LANES, n);
    for (int t = 0; t < taps; t++) {
      const int pixel = at + t * l->dilation;
      if (!inside && (pixel < 0 || pixel >= l->x_pixels)) continue;
      const float *x = l->x + (size_t)pixel * l->channels + j;
      for (unsigned v = 0; v < vectors; v++)
        results[t][v] = MULTIPLY_ADD(load_lanes(x + v * LANES, n), columns[v], results[t][v]);
    }
  }
}

/* Channels [j, j + vectors * n): whole vectors, or n lanes of one. */
static inline __attribute__((always_inline)) void add_taps(float *c, const mptl_channel_line *l,
                                                           int kx, const int taps,
                                                           const unsigned vectors, size_t j,
                                                           size_t n) {
  vf results[3][CHANNEL_VECTORS];
  const int before = l->left - kx * l->dilation, after = l->x_pixels - 1 + before,
            reach = (taps - 1) * l->dilation;
  int from = before > 0 ? (before + l->stride - 1) / l->stride : 0,
      end = after >= reach ? (after - reach) / l->stride + 1 : 0;
  end = end < l->dy_pixels ? end : l->dy_pixels;
  from = from < end ? from : end;
  c += (size_t)kx * l->channels + j;
  for (int t = 0; t < taps; t++)
    for (unsigned v = 0; v < vectors; v++)
      results[t][v] = load_lanes(c + (size_t)t * l->channels + v * LANES, n);
  add_pixels(results, l, kx, taps, vectors, false, j, n, 0, from);
  add_pixels(results, l, kx, taps, vectors, true, j, n, from, end);
  add_pixels(results, l, kx, taps, vectors, false, j, n, end, l->dy_pixels);
  for (int t = 0; t < taps; t++)
    for (unsigned v = 0; v < vectors; v++)
      store_lanes(c + (size_t)t * l->channels + v * LANES, results[t][v], n);
}

static inline __attribute__((always_inline)) void add_row(float *c, const mptl_channel_line *l,
                                                          int kx, const int taps) {
  size_t j = 0;
  for (; j + CHANNEL_VECTORS * LANES <= l->channels; j += CHANNEL_VECTORS * LANES)
    add_taps(c, l, kx, taps, CHANNEL_VECTORS, j, LANES);
  for (; j + LANES <= l->channels; j += LANES) add_taps(c, l, kx, taps, 1, j, LANES);
  if (j < l->channels) add_taps(c, l, kx, taps, 1, j, l->channels - j);
}

static void channel_weights(float *c, const mptl_channel_line *l) {
  if (l->kw == 3)
    add_row(c, l, 0, 3);
  else
    for (int kx = 0; kx < l->kw; kx++) add_row(c, l, kx, 1);
}

/* ---- Copying ---- */

/* For constant widths of up to two vectors, so that a row is a few instructions. */
static inline __attribute__((always_inline)) void copy_narrow(float *to, size_t width,
                                                              const float *from, size_t step,
                                                              size_t columns, size_t rows) {
  const size_t first = columns < LANES ? columns : LANES, second = columns - first;
  for (; rows > 0; rows--, to += width, from += step) {
    store_lanes(to, load_lanes(from, first), width < LANES ? width : LANES);
    if (width > LANES) store(to + LANES, load_lanes(from + LANES, second));
  }
}

static void copy(float *to, size_t width, const float *from, size_t step, size_t columns,
                 size_t rows) {
  if (columns == width && step == width)
    memcpy(to, from, rows * width * sizeof *to);
  else if (width == LANES)
    copy_narrow(to, LANES, from, step, columns, rows);
  else if (width == 2 * LANES)
    copy_narrow(to, 2 * LANES, from, step, columns, rows);
  else if (width < LANES)
    copy_narrow(to, width, from, step, columns, rows);
  else
    for (; rows > 0; rows--, to += width, from += step) {
      memcpy(to, from, columns * sizeof *to);
      memset(to + columns, 0, (width - columns) * sizeof *to);
    }
}

/* ---- The peak ---- */

/* As many chains as a full tile has, of numbers that stay in registers. */
static float multiply_adds(size_t n) {
  vf results[FULL_ROWS][VECTORS], x = same(0x1p-20f), columns = same(1.0f), all = same(0.0f);
  for (unsigned r = 0; r < FULL_ROWS; r++)
    for (unsigned v = 0; v < VECTORS; v++) results[r][v] = same(0.0f);
  for (size_t i = 0; i < n; i++) {
    /* Numbers that the compiler cannot foresee. */
    __asm__ volatile("" : REGISTER(x), REGISTER(columns));
    for (unsigned r = 0; r < FULL_ROWS; r++)
      for (unsigned v = 0; v < VECTORS; v++)
        results[r][v] = MULTIPLY_ADD(x, columns, results[r][v]);
  }
  for (unsigned r = 0; r < FULL_ROWS; r++)
    for (unsigned v = 0; v < VECTORS; v++) all += results[r][v];
  return all[0];
}

const mptl_product_kernels MPTL_CPU(products) = {
    .lanes = LANES,
    .vectors = VECTORS,
    .rows = {ROWS_OF_1, ROWS_OF_2, ROWS_OF_3},
    .tile = tile,
    .channel_tile = channel_tile,
    .channel_weights = channel_weights,
    .copy = copy,
    .multiply_adds = multiply_adds,
    .multiply_adds_each = (size_t)FULL_ROWS * VECTORS * LANES};

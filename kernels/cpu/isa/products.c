/* Tiles of matrix products (kernels/cpu/products.h). All results of a tile stay in registers; a
 * vector of columns is loaded once and multiplied by one number of each row. */
#include "kernels/cpu/products.h"

#include <math.h>

#include "kernels/cpu/table.h"

#define ROWS_4(X, v) X(1, v) X(2, v) X(3, v) X(4, v)
#define ROWS_6(X, v) ROWS_4(X, v) X(5, v) X(6, v)
#define ROWS_8(X, v) ROWS_6(X, v) X(7, v) X(8, v)
#define ROWS_12(X, v) ROWS_8(X, v) X(9, v) X(10, v) X(11, v) X(12, v)

/* Columns of a vector, the rows of tiles of 1, 2, ... vectors, the tiles that there are, the
 * multiply-add of vectors, and how an assembler operand names a register. The results of a tile, a
 * row of columns and one number fit into the registers. The more rows, the fewer loads of columns;
 * the more columns, the fewer loads of single numbers; the processor can do as many loads as
 * multiply-adds, and less is better. */
#if defined(MPTL_ISA_avx512)
#include <immintrin.h>
enum { LANES = 16, ROWS_OF_1 = 12, ROWS_OF_2 = 12, ROWS_OF_3 = 8, VECTORS = 3 };
#define TILES(X) ROWS_12(X, 1) ROWS_12(X, 2) ROWS_8(X, 3)
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#define REGISTER "+v"
#elif defined(MPTL_ISA_avx2)
#include <immintrin.h>
enum { LANES = 8, ROWS_OF_1 = 12, ROWS_OF_2 = 6, ROWS_OF_3 = 0, VECTORS = 2 };
#define TILES(X) ROWS_12(X, 1) ROWS_6(X, 2)
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#define REGISTER "+x"
#elif defined(__aarch64__)
#include <arm_neon.h>
enum { LANES = 4, ROWS_OF_1 = 12, ROWS_OF_2 = 12, ROWS_OF_3 = 8, VECTORS = 3 };
#define TILES(X) ROWS_12(X, 1) ROWS_12(X, 2) ROWS_8(X, 3)
#define MULTIPLY_ADD(a, b, c) vfmaq_f32(c, a, b)
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

enum { MOST_ROWS = ROWS_OF_1, FULL_ROWS = VECTORS == 3 ? ROWS_OF_3 : ROWS_OF_2 };
_Static_assert(MOST_ROWS <= (int)MPTL_PRODUCT_ROWS && VECTORS <= (int)MPTL_PRODUCT_VECTORS &&
                   LANES <= (int)MPTL_PRODUCT_LANES,
               "a tile fits into arrays");

/* The tile for constant numbers of rows and vectors, so that the results are registers. */
static inline __attribute__((always_inline)) void compute(float *c, const size_t *to,
                                                          const mptl_chain *chain,
                                                          const size_t *row, const unsigned rows,
                                                          const unsigned vectors,
                                                          mptl_chain_end end) {
  vf results[MOST_ROWS][VECTORS];
  const float *b = chain->b;
  const size_t stride = chain->stride;
  for (unsigned r = 0; r < rows; r++)
    for (unsigned v = 0; v < vectors; v++)
      results[r][v] = end == MPTL_CHAIN_CONTINUE ? load(c + to[r] + v * LANES) : same(0.0f);
  for (size_t t = 0; t < chain->spans; t++) {
    const float *a[MOST_ROWS];
    for (unsigned r = 0; r < rows; r++) a[r] = chain->a + (row[r] + chain->span[t]);
    for (size_t i = 0, at = 0; i < chain->length; i++, at += stride, b += vectors * LANES) {
      vf columns[VECTORS];
      for (unsigned v = 0; v < vectors; v++) columns[v] = load(b + v * LANES);
      for (unsigned r = 0; r < rows; r++) {
        vf x = same(a[r][at]);
        for (unsigned v = 0; v < vectors; v++)
          results[r][v] = MULTIPLY_ADD(x, columns[v], results[r][v]);
      }
    }
  }
  for (unsigned r = 0; r < rows; r++)
    for (unsigned v = 0; v < vectors; v++) {
      float *p = c + to[r] + v * LANES;
      store(p, end == MPTL_CHAIN_ADD ? load(p) + results[r][v] : results[r][v]);
    }
}

typedef void tile_fn(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                     mptl_chain_end end);

#define TILE(r, v)                                                                \
  static void tile_##r##_##v(float *c, const size_t *to, const mptl_chain *chain, \
                             const size_t *row, mptl_chain_end end) {             \
    compute(c, to, chain, row, r, v, end);                                        \
  }
#define ENTRY(r, v) [r - 1][v - 1] = tile_##r##_##v,

TILES(TILE)
static tile_fn *const tiles[MOST_ROWS][VECTORS] = {TILES(ENTRY)};

static void tile(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                 unsigned rows, unsigned vectors, mptl_chain_end end) {
  tiles[rows - 1][vectors - 1](c, to, chain, row, end);
}

/* ---- Depthwise ---- */

/* A vector of columns from j on. */
static inline __attribute__((always_inline)) void compute_channels(float *c, const size_t *to,
                                                                   const mptl_chain *chain,
                                                                   const size_t *row,
                                                                   const unsigned rows, size_t j,
                                                                   mptl_chain_end end) {
  vf results[MPTL_CHANNEL_ROWS];
  const float *b = chain->b + j;
  const size_t stride = chain->stride, step = chain->step;
  for (unsigned r = 0; r < rows; r++)
    results[r] = end == MPTL_CHAIN_CONTINUE ? load(c + to[r] + j) : same(0.0f);
  for (size_t t = 0; t < chain->spans; t++) {
    const float *a[MPTL_CHANNEL_ROWS];
    for (unsigned r = 0; r < rows; r++) a[r] = chain->a + (row[r] + chain->span[t] + j);
    for (size_t i = 0, at = 0; i < chain->length; i++, at += stride, b += step) {
      vf column = load(b);
      for (unsigned r = 0; r < rows; r++)
        results[r] = MULTIPLY_ADD(load(a[r] + at), column, results[r]);
    }
  }
  for (unsigned r = 0; r < rows; r++) {
    float *p = c + to[r] + j;
    store(p, end == MPTL_CHAIN_ADD ? load(p) + results[r] : results[r]);
  }
}

/* One result, from 0 on. */
static float compute_channel(const mptl_chain *chain, size_t row, size_t j) {
  const float *b = chain->b + j;
  float c = 0.0f;
  for (size_t t = 0; t < chain->spans; t++) {
    const float *a = chain->a + (row + chain->span[t] + j);
    for (size_t i = 0; i < chain->length; i++, b += chain->step)
      c = fmaf(a[i * chain->stride], *b, c);
  }
  return c;
}

/* The last vector of columns ends with the last column, and so may repeat some results. */
#define CHANNELS(r, v)                                                                             \
  static void channels_##r(float *c, const size_t *to, const mptl_chain *chain, const size_t *row, \
                           size_t columns, mptl_chain_end end) {                                   \
    for (size_t j = 0; j < columns; j += LANES)                                                    \
      compute_channels(c, to, chain, row, r, j + LANES > columns ? columns - LANES : j, end);      \
  }
#define CHANNELS_ENTRY(r, v) channels_##r,
#define CHANNEL_TILES(X) ROWS_8(X, 1) X(9, 1)

CHANNEL_TILES(CHANNELS)

typedef void channels_fn(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                         size_t columns, mptl_chain_end end);
static channels_fn *const channel_tiles[] = {CHANNEL_TILES(CHANNELS_ENTRY)};
_Static_assert(sizeof channel_tiles / sizeof *channel_tiles == MPTL_CHANNEL_ROWS, "all rows");

static void channel_tile(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                         unsigned rows, size_t columns, mptl_chain_end end) {
  if (columns >= LANES) {
    channel_tiles[rows - 1](c, to, chain, row, columns, end);
    return;
  }
  for (unsigned r = 0; r < rows; r++)
    for (size_t j = 0; j < columns; j++) c[to[r] + j] = compute_channel(chain, row[r], j);
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
    .multiply_adds = multiply_adds,
    .multiply_adds_each = (size_t)FULL_ROWS * VECTORS * LANES};

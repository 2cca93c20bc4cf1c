/* Tiles of matrix products (kernels/cpu/products.h). All results of a tile stay in registers; a
 * vector of columns is loaded once and multiplied by one number of each row. */
#include "kernels/cpu/products.h"

#include <math.h>

#include "kernels/cpu/table.h"

#define ROWS_4(X, v) X(1, v) X(2, v) X(3, v) X(4, v)
#define ROWS_6(X, v) ROWS_4(X, v) X(5, v) X(6, v)
#define ROWS_8(X, v) ROWS_6(X, v) X(7, v) X(8, v)

/* Columns of a vector, the size of a full tile, the tiles that there are, the multiply-add of
 * vectors, and how an assembler operand names a register. The results of a full tile, a row of
 * columns and one number fit into the registers, and there are more multiply-adds than loads. */
#if defined(MPTL_ISA_avx512)
#include <immintrin.h>
enum { LANES = 16, ROWS = 8, VECTORS = 3 };
#define TILES(X) ROWS_8(X, 1) ROWS_8(X, 2) ROWS_8(X, 3)
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps(a, b, c)
#define REGISTER "+v"
#elif defined(MPTL_ISA_avx2)
#include <immintrin.h>
enum { LANES = 8, ROWS = 6, VECTORS = 2 };
#define TILES(X) ROWS_6(X, 1) ROWS_6(X, 2)
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps(a, b, c)
#define REGISTER "+x"
#elif defined(__aarch64__)
#include <arm_neon.h>
enum { LANES = 4, ROWS = 8, VECTORS = 2 };
#define TILES(X) ROWS_8(X, 1) ROWS_8(X, 2)
#define MULTIPLY_ADD(a, b, c) vfmaq_f32(c, a, b)
#define REGISTER "+w"
#else
enum { LANES = 1, ROWS = 4, VECTORS = 2 };
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

_Static_assert(ROWS <= (int)MPTL_PRODUCT_ROWS, "a tile's rows fit into arrays");

/* The tile for constant numbers of rows and vectors, so that the results are registers. */
static inline __attribute__((always_inline)) void compute(float *c, const size_t *to,
                                                          const mptl_chain *chain,
                                                          const size_t *row, const unsigned rows,
                                                          const unsigned vectors,
                                                          mptl_chain_end end) {
  vf results[ROWS][VECTORS];
  const float *b = chain->b;
  const size_t stride = chain->stride;
  for (unsigned r = 0; r < rows; r++)
    for (unsigned v = 0; v < vectors; v++)
      results[r][v] = end == MPTL_CHAIN_CONTINUE ? load(c + to[r] + v * LANES) : same(0.0f);
  for (size_t t = 0; t < chain->spans; t++) {
    const float *a[ROWS];
    for (unsigned r = 0; r < rows; r++) a[r] = chain->a + row[r] + chain->span[t];
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
static tile_fn *const tiles[ROWS][VECTORS] = {TILES(ENTRY)};

static void tile(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                 unsigned rows, unsigned vectors, mptl_chain_end end) {
  tiles[rows - 1][vectors - 1](c, to, chain, row, end);
}

/* As many chains as a full tile has, of numbers that stay in registers. */
static float multiply_adds(size_t n) {
  vf results[ROWS][VECTORS], x = same(0x1p-20f), columns = same(1.0f), all = same(0.0f);
  for (unsigned r = 0; r < ROWS; r++)
    for (unsigned v = 0; v < VECTORS; v++) results[r][v] = same(0.0f);
  for (size_t i = 0; i < n; i++) {
    /* Numbers that the compiler cannot foresee. */
    __asm__ volatile("" : REGISTER(x), REGISTER(columns));
    for (unsigned r = 0; r < ROWS; r++)
      for (unsigned v = 0; v < VECTORS; v++)
        results[r][v] = MULTIPLY_ADD(x, columns, results[r][v]);
  }
  for (unsigned r = 0; r < ROWS; r++)
    for (unsigned v = 0; v < VECTORS; v++) all += results[r][v];
  return all[0];
}

const mptl_product_kernels MPTL_CPU(products) = {
    .lanes = LANES, .rows = ROWS, .vectors = VECTORS, .tile = tile, .multiply_adds = multiply_adds};

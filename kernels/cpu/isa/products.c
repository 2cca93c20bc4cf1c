/* Tiles of matrix products (kernels/cpu/products.h). All results of a tile stay in registers; a
 * vector of columns is loaded once and multiplied by one number of each row. */
#include "kernels/cpu/products.h"

#include <math.h>

#include "kernels/cpu/table.h"

/* Vectors of binary32, and the size of a full tile: its results, a row of columns and one number
 * fit into the registers, and there are more multiply-adds than loads. */
#if defined(MPTL_ISA_avx512)
#include <immintrin.h>
#define REGISTER "+v"
enum { LANES = 16, ROWS = 8, VECTORS = 3 };
typedef __m512 vf;
static inline vf load(const float *p) { return _mm512_loadu_ps(p); }
static inline void store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf same(float x) { return _mm512_set1_ps(x); }
static inline vf sum(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf multiply_add(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(MPTL_ISA_avx2)
#include <immintrin.h>
#define REGISTER "+x"
enum { LANES = 8, ROWS = 6, VECTORS = 2 };
typedef __m256 vf;
static inline vf load(const float *p) { return _mm256_loadu_ps(p); }
static inline void store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf same(float x) { return _mm256_set1_ps(x); }
static inline vf sum(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf multiply_add(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
#elif defined(__aarch64__)
#include <arm_neon.h>
#define REGISTER "+w"
enum { LANES = 4, ROWS = 8, VECTORS = 2 };
typedef float32x4_t vf;
static inline vf load(const float *p) { return vld1q_f32(p); }
static inline void store(float *p, vf x) { vst1q_f32(p, x); }
static inline vf same(float x) { return vdupq_n_f32(x); }
static inline vf sum(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf multiply_add(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
#else
#define REGISTER "+m"
enum { LANES = 1, ROWS = 4, VECTORS = 2 };
typedef float vf;
static inline vf load(const float *p) { return *p; }
static inline void store(float *p, vf x) { *p = x; }
static inline vf same(float x) { return x; }
static inline vf sum(vf a, vf b) { return a + b; }
static inline vf multiply_add(vf a, vf b, vf c) { return fmaf(a, b, c); }
#endif

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
          results[r][v] = multiply_add(x, columns[v], results[r][v]);
      }
    }
  }
  for (unsigned r = 0; r < rows; r++)
    for (unsigned v = 0; v < vectors; v++) {
      float *p = c + to[r] + v * LANES;
      store(p, end == MPTL_CHAIN_ADD ? sum(load(p), results[r][v]) : results[r][v]);
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

#define ROWS_4(X, v) X(1, v) X(2, v) X(3, v) X(4, v)
#define ROWS_6(X, v) ROWS_4(X, v) X(5, v) X(6, v)
#define ROWS_8(X, v) ROWS_6(X, v) X(7, v) X(8, v)
#if defined(MPTL_ISA_avx512)
#define TILES(X) ROWS_8(X, 1) ROWS_8(X, 2) ROWS_8(X, 3)
#elif defined(MPTL_ISA_avx2)
#define TILES(X) ROWS_6(X, 1) ROWS_6(X, 2)
#elif defined(__aarch64__)
#define TILES(X) ROWS_8(X, 1) ROWS_8(X, 2)
#else
#define TILES(X) ROWS_4(X, 1) ROWS_4(X, 2)
#endif

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
    __asm__ volatile(""
                     : REGISTER(x),
                       REGISTER(columns)); /* numbers that the compiler cannot foresee */
    vf factor = x, column = columns;
    for (unsigned r = 0; r < ROWS; r++)
      for (unsigned v = 0; v < VECTORS; v++)
        results[r][v] = multiply_add(factor, column, results[r][v]);
  }
  for (unsigned r = 0; r < ROWS; r++)
    for (unsigned v = 0; v < VECTORS; v++) all = sum(all, results[r][v]);
  float lanes[LANES];
  store(lanes, all);

  return lanes[0];
}

const mptl_product_kernels MPTL_CPU(products) = {
    .lanes = LANES, .rows = ROWS, .vectors = VECTORS, .tile = tile, .multiply_adds = multiply_adds};

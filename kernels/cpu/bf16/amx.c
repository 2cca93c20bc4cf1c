/* Tiles in bf16 (kernels/cpu/bf16.h) by AMX: four accumulators, two blocks of each operand. */
#include "kernels/cpu/bf16/copies.h"

enum { ROW_BYTES = MPTL_BF16_TERMS * 2, RESULT_BYTES = MPTL_BF16_SIDE * 4 };

/* What LDTILECFG reads: all tiles have 16 rows of 64 bytes. Static, because GCC does not know that
 * the instruction reads all of it. */
static const struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tiles = {.palette = 1,
           .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
           .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

static void begin(void) { _tile_loadconfig(&tiles); }

static void end(void) { _tile_release(); }

/* Registers: results 0 and 1 of the first row of tiles, 2 and 3 of the second; blocks of rows 4 and
 * 5; of columns 6 and 7. */
#define EACH_RESULT(DO)                      \
  do {                                       \
    DO(0, 0, 0);                             \
    if (across > 1) DO(1, 0, 1);             \
    if (down > 1) DO(2, 1, 0);               \
    if (down > 1 && across > 1) DO(3, 1, 1); \
  } while (0)

static inline void add(float *to, size_t step, const float *results) {
  for (size_t r = 0; r < MPTL_BF16_SIDE; r++) {
    float *row = to + r * step;
    _mm512_storeu_ps(
        row, _mm512_add_ps(_mm512_loadu_ps(row), _mm512_load_ps(results + r * MPTL_BF16_SIDE)));
  }
}

static inline __attribute__((always_inline)) void multiply_tiles(const mptl_bf16_product *p,
                                                                 const unsigned down,
                                                                 const unsigned across,
                                                                 const unsigned row_parts,
                                                                 const unsigned column_parts) {
  const size_t step = p->step * sizeof(float);
  const mptl_bf16_rows rows[2] = {p->rows[0], p->rows[1]};
  const uint16_t *columns[2] = {p->columns[0], p->columns[1]};
#define ZERO(t, i, k) _tile_zero(t)
#define LOAD(t, i, k) _tile_loadd(t, p->to[i][k], step)
#define STORE(t, i, k) _tile_stored(t, p->to[i][k], step)
#define ADD(t, i, k)                        \
  do {                                      \
    _tile_stored(t, results, RESULT_BYTES); \
    add(p->to[i][k], p->step, results);     \
  } while (0)
#define LOAD_ROWS(which)                                                                           \
  do {                                                                                             \
    _tile_loadd(4, rows[0].at + rows[0].offset[block] + which * rows[0].part, rows[0].step * 2);   \
    if (down > 1)                                                                                  \
      _tile_loadd(5, rows[1].at + rows[1].offset[block] + which * rows[1].part, rows[1].step * 2); \
  } while (0)
#define LOAD_COLUMNS(which)                                                                     \
  do {                                                                                          \
    _tile_loadd(6, columns[0] + block * MPTL_BF16_BLOCK + which * p->column_part, ROW_BYTES);   \
    if (across > 1)                                                                             \
      _tile_loadd(7, columns[1] + block * MPTL_BF16_BLOCK + which * p->column_part, ROW_BYTES); \
  } while (0)
#define MULTIPLY()                                       \
  do {                                                   \
    _tile_dpbf16ps(0, 4, 6);                             \
    if (across > 1) _tile_dpbf16ps(1, 4, 7);             \
    if (down > 1) _tile_dpbf16ps(2, 5, 6);               \
    if (down > 1 && across > 1) _tile_dpbf16ps(3, 5, 7); \
  } while (0)
  if (p->end == MPTL_CHAIN_CONTINUE)
    EACH_RESULT(LOAD);
  else
    EACH_RESULT(ZERO);
  for (size_t block = 0; block < p->blocks; block++) {
    LOAD_ROWS(0);
    LOAD_COLUMNS(0);
    MULTIPLY();
    if (column_parts > 1) {
      LOAD_COLUMNS(1);
      MULTIPLY();
    }
    if (row_parts > 1) {
      LOAD_ROWS(1);
      MULTIPLY();
    }
    if (row_parts > 1 && column_parts > 1) {
      LOAD_COLUMNS(0);
      MULTIPLY();
    }
  }
  if (p->end == MPTL_CHAIN_ADD) {
    _Alignas(64) float results[MPTL_BF16_SIDE * MPTL_BF16_SIDE];
    EACH_RESULT(ADD);
  } else {
    EACH_RESULT(STORE);
  }
}

typedef void tiles_fn(const mptl_bf16_product *p);

/* By tiles down, tiles across, parts of rows, parts of columns. */
#define TILES(d, a, r, c) \
  static void tiles_##d##a##r##c(const mptl_bf16_product *p) { multiply_tiles(p, d, a, r, c); }
#define ENTRY(d, a, r, c) [d - 1][a - 1][r - 1][c - 1] = tiles_##d##a##r##c,
#define PARTS(X, d, a) X(d, a, 1, 1) X(d, a, 1, 2) X(d, a, 2, 1) X(d, a, 2, 2)
#define ALL(X) PARTS(X, 1, 1) PARTS(X, 1, 2) PARTS(X, 2, 1) PARTS(X, 2, 2)

ALL(TILES)
static tiles_fn *const tiles_of[2][2][2][2] = {ALL(ENTRY)};

static void multiply(const mptl_bf16_product *p) {
  tiles_of[p->down - 1][p->across - 1][p->row_parts - 1][p->column_parts - 1](p);
}

static float multiply_adds(size_t n) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (size_t i = 0; i < n; i++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  float results[MPTL_BF16_SIDE * MPTL_BF16_SIDE];
  _tile_stored(0, results, RESULT_BYTES);
  return results[0];
}

const mptl_bf16_kernels mptl_bf16_amx = {
    .gain = 8,
    .begin = begin,
    .end = end,
    .multiply = multiply,
    .gather = gather,
    .transpose = transpose,
    .join = join,
    .split = split,
    .pair = pair,
    .turn = turn,
    .multiply_adds = multiply_adds,
    .multiply_adds_each = (size_t)4 * MPTL_BF16_SIDE * MPTL_BF16_SIDE * MPTL_BF16_TERMS};

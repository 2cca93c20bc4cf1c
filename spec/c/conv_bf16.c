/* The bf16 passes of convolutions (engine/backend/cpu/conv_bf16.h). Operands are integers, so that
 * every sum is exact: results must be those of the passes in binary32, which have a spec of their
 * own. With every instruction set that has bf16 and with the loops of bf16/scalar.c, for any number
 * of threads, operands in one part and in two, nothing written outside of results, packed weights
 * and scratch memory. Then the tiles of each instruction set: their sums of random numbers against
 * the order that kernels/cpu/bf16.h states, bit for bit. */
#include <math.h>

#include "backend/cpu/conv_bf16.h"
#include "conv_shapes.h"
#include "mptl/isa.h"

typedef struct operands {
  mptl_conv_shape s;
  float *x, *w, *y, *bias;
} operands;

static mptl_rounder exact;

static mptl_sink sink_of(array results) {
  return (mptl_sink){.data = array_at(results), .size = sizeof(float), .rounder = &exact};
}

/* What a pass must give: results, and then dbias. */
static float *expect(const operands *o, mptl_pass pass, size_t n) {
  mptl_conv *conv;
  MUST(mptl_conv_create(&conv, 1, &o->s, pass));
  array results = array_create((n + (size_t)o->s.oc) * sizeof(float));
  const mptl_source x = {o->x, sizeof(float), NULL}, dy = {o->y, sizeof(float), NULL};
  const mptl_sink sink = sink_of(results);
  array packed = array_create(mptl_conv_packed_bytes(conv)),
        scratch = array_create(mptl_conv_scratch_bytes(conv, sizeof(float), &sink));
  float *to = array_at(results), *copy = malloc(results.bytes);
  if (copy == NULL) abort();
  if (pass != MPTL_BACKWARD_WEIGHTS) mptl_conv_pack(conv, array_at(packed), o->w);
  if (pass == MPTL_FORWARD)
    mptl_conv_forward(conv, &sink, &x, array_at(packed), o->bias, array_at(scratch));
  else if (pass == MPTL_BACKWARD_DATA)
    mptl_conv_backward_data(conv, &sink, &dy, array_at(packed), array_at(scratch));
  else
    mptl_conv_backward_weights(conv, to, o->s.bias ? to + n : NULL, &x, &dy, array_at(scratch));
  memcpy(copy, to, results.bytes);
  array_destroy(packed), array_destroy(scratch), array_destroy(results);
  mptl_conv_destroy(conv);
  return copy;
}

static void compare(const operands *o, mptl_pass pass, const char *isa, int threads,
                    const unsigned parts[2], const float *got, const float *expected, size_t n) {
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < n; i++)
    if (!(got[i] == expected[i]) && wrong++ == 0) first = i;
  CHECK(
      wrong == 0,
      "%s, %s, %s, %d threads, parts %u x %u: %zu of %zu wrong, first at %zu: %.9g, expected %.9g",
      mptl_conv_name(&o->s).text, mptl_pass_name(pass), isa, threads, parts[0], parts[1], wrong, n,
      first, (double)got[first], (double)expected[first]);
}

static void check_pass(const operands *o, mptl_pass pass, const mptl_bf16_kernels *kernels,
                       const char *isa, int threads, const unsigned parts[2],
                       const float *expected) {
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(&o->s);
  const size_t n = sizes.n[mptl_arrays_of(pass).result];
  mptl_conv_bf16 *conv;
  MUST(mptl_conv_bf16_create(&conv, kernels, threads, &o->s, pass, parts));
  array results = array_create(n * sizeof(float)),
        dbias = array_create((size_t)o->s.oc * sizeof(float)),
        packed = array_create(mptl_conv_bf16_packed_bytes(conv)),
        scratch = array_create(mptl_conv_bf16_scratch_bytes(conv));
  const mptl_source x = {o->x, sizeof(float), NULL}, dy = {o->y, sizeof(float), NULL};
  const mptl_sink sink = sink_of(results);
  if (pass != MPTL_BACKWARD_WEIGHTS) mptl_conv_bf16_pack(conv, array_at(packed), o->w);
  if (pass == MPTL_FORWARD)
    mptl_conv_bf16_forward(conv, &sink, &x, array_at(packed), o->bias, array_at(scratch));
  if (pass == MPTL_BACKWARD_DATA)
    mptl_conv_bf16_backward_data(conv, &sink, &dy, array_at(packed), array_at(scratch));
  if (pass == MPTL_BACKWARD_WEIGHTS) {
    mptl_conv_bf16_backward_weights(conv, array_at(results), o->s.bias ? array_at(dbias) : NULL, &x,
                                    &dy, array_at(scratch));
    if (o->s.bias)
      compare(o, pass, isa, threads, parts, array_at(dbias), expected + n, (size_t)o->s.oc);
  }
  compare(o, pass, isa, threads, parts, array_at(results), expected, n);
  CHECK(array_destroy(packed) & array_destroy(scratch), "%s: wrote outside of its memory",
        mptl_conv_name(&o->s).text);
  CHECK(array_destroy(results) & array_destroy(dbias), "%s: wrote outside of its results",
        mptl_conv_name(&o->s).text);
  mptl_conv_bf16_destroy(conv);
}

/* Integers; wide ones have up to 9 significant bits, and so two parts. */
static float *random_array(size_t n, bool wide, uint64_t *state) {
  float *x = malloc(n * sizeof *x);
  if (x == NULL) abort();
  for (size_t i = 0; i < n; i++)
    x[i] = wide && random_bits(state) % 2 ? 257.0f * ((float)(random_bits(state) % 3) - 1)
                                          : random_value(INTEGERS, state);
  return x;
}

static void check_pass_everywhere(const operands *o, mptl_pass pass, const unsigned parts[2]) {
  const char *isa;
  float *expected = expect(o, pass, mptl_conv_sizes_of(&o->s).n[mptl_arrays_of(pass).result]);
  check_pass(o, pass, &mptl_bf16_scalar, "loops", 2, parts, expected);
  for (size_t i = 0; (isa = mptl_isa_here(i)) != NULL; i++) {
    MUST(mptl_isa_select(isa));
    for (int threads = 1; mptl_bf16() != NULL && threads <= 5; threads += 2)
      check_pass(o, pass, mptl_bf16(), isa, threads, parts, expected);
  }
  free(expected);
}

static void check(mptl_conv_shape s, uint64_t *state) {
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(&s);
  MUST(mptl_conv_check(&s));
  for (unsigned i = 0; i < 4 * MPTL_PASSES; i++) {
    const mptl_pass pass = (mptl_pass)(i / 4);
    const unsigned parts[2] = {1 + i % 4 / 2, 1 + i % 2};
    const bool first = parts[0] == 2, second = parts[1] == 2;
    const bool is_wide[3][3] = {[MPTL_FORWARD] = {[MPTL_X] = first, [MPTL_W] = second},
                                [MPTL_BACKWARD_DATA] = {[MPTL_Y] = first, [MPTL_W] = second},
                                [MPTL_BACKWARD_WEIGHTS] = {[MPTL_X] = first, [MPTL_Y] = second}};
    operands o = {s, random_array(sizes.n[MPTL_X], is_wide[pass][MPTL_X], state),
                  random_array(sizes.n[MPTL_W], is_wide[pass][MPTL_W], state),
                  random_array(sizes.n[MPTL_Y], is_wide[pass][MPTL_Y], state),
                  s.bias ? random_array((size_t)s.oc, false, state) : NULL};
    check_pass_everywhere(&o, pass, parts);
    free(o.x), free(o.w), free(o.y), free(o.bias);
  }
}

static mptl_conv_shape random_shape(uint64_t *state) {
  mptl_conv_shape s = {
      .n = 1 + (int)(random_bits(state) % 5), .groups = 1, .bias = random_bits(state) % 2 == 0};
  s.ic = random_bits(state) % 2 ? 1 + (int)(random_bits(state) % 40) : 32;
  s.oc = random_bits(state) % 2 ? 1 + (int)(random_bits(state) % 70) : 32;
  random_axis(&s.ih, &s.oh, &s.kh, &s.sh, &s.ph, &s.dh, state);
  random_axis(&s.iw, &s.ow, &s.kw, &s.sw, &s.pw, &s.dw, state);
  return s;
}

/* ---- Tiles ---- */

static float number(uint16_t x) { return mptl_bits_f32((uint32_t)x << 16); }

/* c and the products of a row and a column in a block, in the order of AVX512-BF16, and of AMX. */
static float add_pairs(float c, const uint16_t *row, const uint16_t *column) {
  for (size_t i = 0; i < 32; i++) {
    const size_t k = i ^ 1; /* a pair's second term comes first */
    c += number(row[k]) * number(column[k / 2 * 32 + k % 2]);
  }
  return c;
}

static float add_block(float c, const uint16_t *row, const uint16_t *column) {
  float sum[2] = {0, 0};
  for (size_t k = 0; k < 32; k++) sum[k % 2] += number(row[k]) * number(column[k / 2 * 32 + k % 2]);
  return c + (sum[0] + sum[1]);
}

static void check_tiles(const mptl_bf16_kernels *kernels, const char *isa, uint64_t *state) {
  enum { BLOCKS = 5, STEP = 40, ROW = 33, PART = BLOCKS * 16 * ROW };
  static uint16_t rows[2][2 * PART], columns[2][2 * BLOCKS * MPTL_BF16_BLOCK];
  static float results[32 * STEP], old[32 * STEP];
  static const unsigned order[4][2] = {{0, 0}, {0, 1}, {1, 1}, {1, 0}};
  float (*add)(float, const uint16_t *, const uint16_t *) =
      strcmp(isa, "avx512_bf16") == 0 ? add_pairs : add_block;
  size_t offset[BLOCKS], wrong = 0;
  for (size_t k = 0; k < BLOCKS; k++) offset[k] = (BLOCKS - 1 - k) * 16 * ROW;
  for (int t = 0; t < 2; t++) {
    for (size_t i = 0; i < sizeof rows[t] / 2; i++)
      rows[t][i] = (uint16_t)(mptl_f32_bits(random_value(REALS, state)) >> 16);
    for (size_t i = 0; i < sizeof columns[t] / 2; i++)
      columns[t][i] = (uint16_t)(mptl_f32_bits(random_value(REALS, state)) >> 16);
  }
  for (unsigned variant = 0; variant < 3 * 16 * (BLOCKS + 1); variant++) {
    const mptl_chain_end end = (mptl_chain_end)(variant % 3);
    const unsigned shape = variant / 3 % 16;
    mptl_bf16_product p = {
        .rows = {{rows[0], ROW, PART, offset}, {rows[1], ROW, PART, offset}},
        .columns = {columns[0], columns[1]},
        .column_part = (size_t)BLOCKS * MPTL_BF16_BLOCK,
        .down = 1 + shape % 2,
        .across = 1 + shape / 2 % 2,
        .row_parts = 1 + shape / 4 % 2,
        .column_parts = 1 + shape / 8,
        .blocks = variant / 48,
        .to = {{results, results + 16}, {results + 16 * STEP, results + 16 * STEP + 16}},
        .step = STEP,
        .end = end};
    for (size_t i = 0; i < 32 * STEP; i++) results[i] = old[i] = random_value(REALS, state);
    kernels->begin();
    kernels->multiply(&p);
    kernels->end();
    for (size_t r = 0; r < 32; r++)
      for (size_t j = 0; j < STEP; j++) {
        const float before = old[r * STEP + j];
        float right = before;
        if (r / 16 < p.down && j < 32 && j / 16 < p.across) {
          right = end == MPTL_CHAIN_CONTINUE ? before : 0;
          for (size_t k = 0; k < 4 * p.blocks; k++) {
            const unsigned row_part = order[k % 4][0], column_part = order[k % 4][1];
            if (row_part >= p.row_parts || column_part >= p.column_parts) continue;
            right = add(right, p.rows[r / 16].at + offset[k / 4] + r % 16 * ROW + row_part * PART,
                        p.columns[j / 16] + k / 4 * MPTL_BF16_BLOCK + j % 16 * 2 +
                            column_part * p.column_part);
          }
          if (end == MPTL_CHAIN_ADD) right = before + right;
        }
        wrong += memcmp(&right, &results[r * STEP + j], sizeof right) != 0;
      }
  }
  CHECK(wrong == 0, "tiles of %s: %zu wrong", isa, wrong);
}

int main(void) {
  const mptl_conv_shape shapes[] = {
      {9, 20, 12, 12, 40, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, true},  /* units of several images */
      {2, 9, 20, 60, 17, 20, 60, 3, 3, 1, 1, 1, 1, 1, 1, 1, true},   /* units of 18 rows and of 2 */
      {2, 32, 32, 32, 64, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, false}, /* tiles of rows as they are */
      {2, 64, 16, 16, 32, 8, 8, 3, 3, 2, 2, 1, 1, 1, 1, 1, false},
      {2, 3, 17, 17, 20, 9, 9, 7, 7, 2, 2, 3, 3, 1, 1, 1, true}, /* an ImageNet stem */
      {2, 16, 8, 8, 24, 4, 4, 1, 1, 2, 2, 0, 0, 1, 1, 1, false}, /* pixels that no window reads */
      {2, 16, 1, 1, 16, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1,
       false}, /* a window larger than the input */
      {1, 40, 100, 60, 40, 100, 60, 3, 1, 1, 1, 1, 0, 1, 1, 1, true}, /* parts of an image */
      {1, 40, 70, 60, 40, 148, 60, 3, 1, 1, 1, 40, 0, 1, 1, 1, true}, /* some are all padding */
      {1, 3, 3, 900, 5, 3, 900, 3, 3, 1, 1, 1, 1, 1, 1, 1, false}, /* lines longer than a chunk */
      {5, 130, 9, 7, 24, 9, 7, 1, 1, 1, 1, 0, 0, 1, 1, 1, false},  /* more channels in than out */
      {9, 37, 2, 2, 36, 2, 2, 1, 1, 1, 1, 0, 0, 1, 1, 1, false},   /* small images of these */
      {300, 65, 1, 1, 10, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, true},  /* a linear layer */
      {5, 16, 4, 4, 10, 1, 1, 4, 4, 4, 4, 0, 0, 1, 1, 1, true}, /* the same of flattened images */
  };
  const size_t given = sizeof shapes / sizeof *shapes;
  uint64_t state = 1;
  mptl_format format;
  const char *isa;
  MUST(mptl_format_parse(&format, "fp32"));
  mptl_rounder_init(&exact, format, MPTL_NEAREST_EVEN, MPTL_INF);
  check_tiles(&mptl_bf16_scalar, "loops", &state);
  for (size_t i = 0; (isa = mptl_isa_here(i)) != NULL; i++) {
    MUST(mptl_isa_select(isa));
    if (mptl_bf16() == NULL) continue;
    printf("%s\n", isa);
    check_tiles(mptl_bf16(), isa, &state);
  }
  for (size_t i = 0; i < given; i++) check(shapes[i], &state);
  for (int i = 0; i < 40; i++) check(random_shape(&state), &state);
  printf("%zu convolutions, %d failures\n", given + 40, failures);
  return failures != 0;
}

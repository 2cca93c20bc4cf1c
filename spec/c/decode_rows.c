/* Reading values as bf16: rows that lie apart equal rows read one by one and the scalar definition,
 * bit for bit, with every instruction set; nothing outside of rows is read or written (run it with
 * the address sanitizer). */
#include <stdbool.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "check.h"
#include "mptl/isa.h"

enum { ROWS = 7, GAP = 5 };

static uint32_t random_word(uint32_t *random) {
  *random = *random * 1664525u + 1013904223u;
  return *random ^ *random >> 15;
}

/* A row as the scalar definition decodes it. */
static void expect(uint16_t *to, const mptl_source *s, size_t offset, size_t n) {
  for (size_t i = offset; i < offset + n; i++) {
    uint32_t code = s->size == 1   ? ((const uint8_t *)s->data)[i]
                    : s->size == 2 ? ((const uint16_t *)s->data)[i]
                                   : ((const uint32_t *)s->data)[i];
    *to++ = (uint16_t)((s->size == 4 ? code : mptl_decode_code(code, s->rounder)) >> 16);
  }
}

/* Reads rows of `columns` elements from element `offset` on, `step` apart. */
static int check_rows(const char *isa, mptl_source *s, size_t columns, size_t offset, size_t step,
                      uint32_t *random) {
  const size_t n = offset + (ROWS - 1) * step + columns, to_step = columns + GAP;
  uint8_t *data = malloc(n * s->size);
  uint16_t *rows = malloc(ROWS * to_step * sizeof *rows), one[columns], expected[columns];
  MUST(data != NULL && rows != NULL);
  for (size_t i = 0; i < n * s->size; i++) data[i] = (uint8_t)random_word(random);
  memset(rows, 0xa5, ROWS * to_step * sizeof *rows);
  s->data = data;
  mptl_read_bf16_rows(s, offset, columns, step, ROWS, rows, to_step);
  int wrong = 0;
  for (size_t row = 0; row < ROWS; row++) {
    const uint16_t *got = rows + row * to_step;
    expect(expected, s, offset + row * step, columns);
    mptl_read_bf16(s, offset + row * step, columns, one);
    bool gap = true;
    for (size_t i = columns; i < to_step; i++) gap = gap && got[i] == 0xa5a5;
    if (memcmp(expected, got, sizeof one) == 0 && memcmp(expected, one, sizeof one) == 0 && gap)
      continue;
    if (wrong++ == 0)
      fprintf(stderr, "%s, FP(%d,%d,%d), %zu columns, offset %zu, step %zu: row %zu is wrong\n",
              isa, s->rounder->format.e, s->rounder->format.m, s->rounder->format.b, columns,
              offset, step, row);
  }
  free(data), free(rows);
  return wrong;
}

int main(void) {
  static const char *const formats[] = {"FP(4,3,4)", "FP(5,2,0)",  "fp8_e4m3fn",   "FP(2,1,0)",
                                        "FP(1,0,0)", "FP(5,2,60)", "FP(4,3,-127)", "FP(6,9,0)",
                                        "fp16",      "bf16",       "fp32"};
  static const size_t columns[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 259};
  uint32_t random = 1;
  int wrong = 0;
  const char *isa;
  for (size_t k = 0; (isa = mptl_isa_here(k)) != NULL; k++) {
    MUST(mptl_isa_select(isa) == MPTL_OK);
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
      mptl_format format;
      mptl_rounder r;
      MUST(mptl_format_parse(&format, formats[f]) == MPTL_OK);
      mptl_rounder_init(&r, format, MPTL_NEAREST_EVEN, MPTL_SATURATE);
      mptl_source source = {.size = mptl_code_size(format), .rounder = &r};
      for (size_t c = 0; c < sizeof columns / sizeof *columns; c++)
        wrong += check_rows(isa, &source, columns[c], 0, columns[c], &random) +
                 check_rows(isa, &source, columns[c], 3, columns[c] + 9, &random);
    }
  }
  if (wrong == 0) printf("decode_rows: no failures\n");
  return wrong > 0;
}

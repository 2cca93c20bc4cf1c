/* Number formats: names, parsing, what they hold. */
#include "mptl/format.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
  const char *name;
  mptl_format format;
} table[] = {
    {"fp32", {8, 23, 0, MPTL_TOP_FULL, false}},      {"tf32", {8, 10, 0, MPTL_TOP_FULL, false}},
    {"bf16", {8, 7, 0, MPTL_TOP_FULL, false}},       {"fp16", {5, 10, 0, MPTL_TOP_IEEE, false}},
    {"fp8_e4m3fn", {4, 3, 0, MPTL_TOP_FN, false}},   {"fp8_e5m2", {5, 2, 0, MPTL_TOP_IEEE, false}},
};

enum { NAMED = sizeof table / sizeof *table };

const char *mptl_format_name(size_t index) { return index < NAMED ? table[index].name : NULL; }

bool mptl_format_equal(mptl_format a, mptl_format b) {
  return a.e == b.e && a.m == b.m && a.top == b.top && a.auto_bias == b.auto_bias && (a.auto_bias || a.b == b.b);
}

int mptl_format_bits(mptl_format f) { return 1 + f.e + f.m; }

const char *mptl_format_print(mptl_format f, char *text, size_t size) {
  for (size_t i = 0; i < NAMED; i++)
    if (mptl_format_equal(f, table[i].format)) {
      snprintf(text, size, "%s", table[i].name);
      return text;
    }
  if (f.auto_bias)
    snprintf(text, size, "FP(%d,%d,auto)", f.e, f.m);
  else
    snprintf(text, size, "FP(%d,%d,%d)", f.e, f.m, f.b);
  return text;
}

static mptl_status check(const char *text, const char *what, long value, long min, long max) {
  if (value >= min && value <= max) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "format %s: %s %ld, accepted are %ld to %ld", text, what, value, min, max);
}

mptl_status mptl_format_parse(mptl_format *format, const char *text) {
  for (size_t i = 0; i < NAMED; i++)
    if (strcasecmp(text, table[i].name) == 0) {
      *format = table[i].format;
      return MPTL_OK;
    }
  char squeezed[48], word[8], end;
  size_t n = 0;
  for (const char *p = text; *p && n < sizeof squeezed - 1; p++)
    if (!isspace((unsigned char)*p)) squeezed[n++] = (char)tolower((unsigned char)*p);
  squeezed[n] = '\0';
  long e, m, b = 0;
  bool fixed = sscanf(squeezed, "fp(%ld,%ld,%ld%c%c", &e, &m, &b, &end, word) == 4 && end == ')';
  bool automatic = !fixed && sscanf(squeezed, "fp(%ld,%ld,%4[auto]%c%c", &e, &m, word, &end, word + 6) == 4 && end == ')' && strcmp(word, "auto") == 0;
  if (!fixed && !automatic)
    return mptl_fail(MPTL_EINVAL, "format %s: unknown, accepted are fp32, tf32, bf16, fp16, fp8_e4m3fn, fp8_e5m2, FP(e,m,b) and FP(e,m,auto)", text);
  MPTL_TRY(check(text, "exponent bits", e, 1, 8));
  MPTL_TRY(check(text, "mantissa bits", m, 0, 23));
  MPTL_TRY(check(text, "bias shift", b, -127, 127));
  *format = (mptl_format){(int8_t)e, (int8_t)m, (int16_t)b, MPTL_TOP_FULL, automatic};
  return MPTL_OK;
}

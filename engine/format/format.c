/* Number formats: a table of names, which parser, printer and `mptl formats` use; limits of
 * formats; facts that follow from them. */
#include "mptl/format.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "format/limits.h"

static const struct {
  const char *name;
  mptl_format format;
} named[] = {
    {"fp32", {8, 23, 0, MPTL_TOP_FULL, false}},    {"tf32", {8, 10, 0, MPTL_TOP_FULL, false}},
    {"bf16", {8, 7, 0, MPTL_TOP_FULL, false}},     {"fp16", {5, 10, 0, MPTL_TOP_IEEE, false}},
    {"fp8_e4m3fn", {4, 3, 0, MPTL_TOP_FN, false}}, {"fp8_e5m2", {5, 2, 0, MPTL_TOP_IEEE, false}},
};

enum { NAMED = sizeof named / sizeof named[0] };

#define ACCEPTED "fp32, tf32, bf16, fp16, fp8_e4m3fn, fp8_e5m2, FP(e,m,b), FP(e,m,auto)"

const char *mptl_format_name(size_t index) { return index < NAMED ? named[index].name : NULL; }

bool mptl_format_equal(mptl_format a, mptl_format b) {
  return a.e == b.e && a.m == b.m && a.top == b.top && a.auto_bias == b.auto_bias &&
         (a.auto_bias || a.b == b.b);
}

int mptl_format_bits(mptl_format format) { return 1 + format.e + format.m; }

/* Skips spaces, reads an integer of any length into *value, limited to +-9999, and skips spaces.
 * false if there is no integer. */
static bool read_integer(const char **text, long *value) {
  char *end;
  while (isspace((unsigned char)**text)) ++*text;
  const char *digits = *text + (**text == '-' || **text == '+');
  if (!isdigit((unsigned char)*digits)) return false;
  *value = strtol(*text, &end, 10);
  if (*value > 9999) *value = 9999;
  if (*value < -9999) *value = -9999;
  while (isspace((unsigned char)*end)) end++;
  *text = end;
  return true;
}

static bool read_char(const char **text, char c) {
  if (**text != c) return false;
  ++*text;
  return true;
}

/* Reads "auto" between spaces. */
static bool read_auto(const char **text) {
  const char *p = *text;
  while (isspace((unsigned char)*p)) p++;
  if (strncasecmp(p, "auto", 4) != 0) return false;
  p += 4;
  while (isspace((unsigned char)*p)) p++;
  *text = p;
  return true;
}

static mptl_status check_limit(const char *text, const char *what, long value, long low,
                               long high) {
  if (value >= low && value <= high) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "format %.60s: %s %ld, accepted are %ld to %ld", text, what, value,
                   low, high);
}

mptl_status mptl_format_parse(mptl_format *format, const char *text) {
  for (int i = 0; i < NAMED; i++) {
    if (strcasecmp(text, named[i].name) != 0) continue;
    *format = named[i].format;
    return MPTL_OK;
  }
  long e = 0, m = 0, b = 0;
  const char *p = text + 2;
  bool auto_bias = false;
  bool ok = strncasecmp(text, "FP", 2) == 0 && read_char(&p, '(') && read_integer(&p, &e) &&
            read_char(&p, ',') && read_integer(&p, &m) && read_char(&p, ',') &&
            ((auto_bias = read_auto(&p)) || read_integer(&p, &b)) && read_char(&p, ')') &&
            *p == '\0';
  if (!ok)
    return mptl_fail(MPTL_EINVAL, "format %.60s: not a format, accepted are " ACCEPTED, text);
  MPTL_TRY(check_limit(text, "exponent bits", e, 1, 8));
  MPTL_TRY(check_limit(text, "mantissa bits", m, 0, 23));
  MPTL_TRY(check_limit(text, "exponent bias shift", b, -127, 127));
  *format = (mptl_format){(int8_t)e, (int8_t)m, (int16_t)b, MPTL_TOP_FULL, auto_bias};
  return MPTL_OK;
}

const char *mptl_format_print(mptl_format format, char *text, size_t size) {
  for (int i = 0; i < NAMED; i++) {
    if (!mptl_format_equal(format, named[i].format)) continue;
    snprintf(text, size, "%s", named[i].name);
    return text;
  }
  if (format.auto_bias)
    snprintf(text, size, "FP(%d,%d,auto)", format.e, format.m);
  else
    snprintf(text, size, "FP(%d,%d,%d)", format.e, format.m, format.b);
  return text;
}

mptl_format_limits mptl_format_find_limits(mptl_format f) {
  mptl_format_limits l;
  l.emin = 2 - (1 << (f.e - 1)) - f.b;
  uint32_t all = (uint32_t)(((uint64_t)1 << (f.e + f.m)) - 1); /* the largest magnitude code */
  int64_t beyond = (int64_t)(129 - l.emin) << f.m;             /* the code that would be 2^128 */
  l.has_infinity = beyond <= all;
  l.has_nan = beyond < all;
  l.inf_code = l.has_infinity ? (uint32_t)beyond : 0;
  l.max_code = l.has_infinity ? (uint32_t)beyond - 1 : all;
  l.nan_code = l.has_nan ? l.inf_code + (f.m > 0 ? 1u << (f.m - 1) : 1) : 0;
  if (f.top == MPTL_TOP_IEEE) {
    l.inf_code = ((1u << f.e) - 1) << f.m;
    l.max_code = l.inf_code - 1;
    l.nan_code = l.inf_code + (1u << (f.m - 1));
    l.has_infinity = l.has_nan = true;
  } else if (f.top == MPTL_TOP_FN) {
    l.nan_code = all;
    l.max_code = all - 1;
    l.has_nan = true;
  }
  uint32_t field = l.max_code >> f.m, fraction = l.max_code & ((1u << f.m) - 1);
  l.max =
      ldexp(fraction + (field ? ldexp(1, f.m) : 0), (field ? (int)field - 1 : 0) + l.emin - f.m);
  return l;
}

mptl_format_info mptl_format_describe(mptl_format format) {
  mptl_format_limits l = mptl_format_find_limits(format);
  return (mptl_format_info){
      .bits = mptl_format_bits(format),
      .max = l.max,
      .min_normal = ldexp(1, l.emin),
      .min_subnormal = ldexp(1, l.emin - format.m),
      .epsilon = ldexp(1, -format.m),
      .has_infinity = l.has_infinity,
      .has_nan = l.has_nan,
      .values = 2 * (uint64_t)l.max_code + 1,
  };
}

mptl_format mptl_format_fit(mptl_format format, double largest) {
  if (!format.auto_bias) return format;
  int ceil_log2;
  double x = fmin(fmax(largest, 0x1p-100), 0x1p128);
  if (frexp(x, &ceil_log2) == 0.5) ceil_log2--; /* a power of two */
  int b = (1 << (format.e - 1)) - ceil_log2;
  format.auto_bias = false;
  format.b = (int16_t)(b > 127 ? 127 : b < -127 ? -127 : b);
  return format;
}

int mptl_bf16_products(mptl_format a, mptl_format b) {
  double smallest_a = mptl_format_describe(a).min_subnormal,
         smallest_b = mptl_format_describe(b).min_subnormal;
  if (a.m > 15 || b.m > 15 || smallest_a < 0x1p-126 || smallest_b < 0x1p-126 ||
      smallest_a * smallest_b < 0x1p-126)
    return 0;
  return (a.m > 7 ? 2 : 1) * (b.m > 7 ? 2 : 1);
}

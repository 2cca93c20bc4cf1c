/* Numbers as lines of text, for filters: a line is a number as mptl_exact_parse reads it, or 0x and
 * the eight digits of a binary32 pattern.
 *
 *   core.read_input(max) -> bytes from standard input, at most max; waits for the first; nil at the
 * end core.round_lines(text, format, options) -> the rounded numbers, one on each line; how many;
 * the first line that is not a number, where it stops. A pattern gives a pattern, another number
 * the shortest decimal that reads back exactly. options as for core.round. FP(e,m,auto) takes its
 *     bias shift from the text
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bindings/rounding.h"
#include "mptl/exact.h"

static int read_input(lua_State *L) {
  lua_Integer max = luaL_checkinteger(L, 1);
  luaL_argcheck(L, max > 0, 1, "must be positive");
  luaL_Buffer b;
  char *space = luaL_buffinitsize(L, &b, (size_t)max);
  ssize_t n;
  do n = read(STDIN_FILENO, space, (size_t)max);
  while (n < 0 && errno == EINTR);
  if (n < 0) luaL_error(L, "standard input: %s", strerror(errno));
  if (n == 0) return lua_pushnil(L), 1;
  luaL_pushresultsize(&b, (size_t)n);
  return 1;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* Reads a pattern: 0x and eight hexadecimal digits; false for other text. */
static bool parse_pattern(const char *text, size_t n, uint32_t *bits) {
  if (n != 10 || text[0] != '0' || (text[1] != 'x' && text[1] != 'X')) return false;
  *bits = 0;
  for (size_t i = 2; i < n; i++) {
    char c = text[i];
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0) return false;
    *bits = *bits << 4 | (uint32_t)digit;
  }
  return true;
}

/* A line without the white space around it. */
typedef struct line {
  const char *text;
  size_t n;
} line;

/* Takes the next line of the text from *p to end. */
static line next_line(const char **p, const char *end) {
  const char *from = *p, *newline = memchr(from, '\n', (size_t)(end - from)),
             *stop = newline ? newline : end;
  *p = newline ? newline + 1 : end;
  while (from < stop && is_space(*from)) from++;
  while (from < stop && is_space(stop[-1])) stop--;
  return (line){from, (size_t)(stop - from)};
}

static bool parse_line(line l, mptl_exact *x, bool *pattern) {
  uint32_t bits;
  *pattern = parse_pattern(l.text, l.n, &bits);
  if (!*pattern) return mptl_exact_parse(x, l.text, l.n);
  *x = mptl_exact_from_f32(bits);
  return true;
}

/* The largest magnitude of the numbers before the first line that is not a number: for the bias
 * shift of FP(e,m,auto). */
static double largest_of(const char *p, const char *end) {
  double largest = 0;
  mptl_exact x;
  bool pattern;
  while (p < end && parse_line(next_line(&p, end), &x, &pattern))
    largest = fmax(largest, mptl_exact_bound(&x));
  return largest;
}

/* Writes an integer in full, else the shortest decimal that strtof reads back as x; returns its
 * length. */
static int print_decimal(char text[32], float x) {
  if (isnan(x)) return snprintf(text, 32, signbit(x) ? "-nan" : "nan");
  if (fabsf(x) < 1e9f && x == truncf(x)) return snprintf(text, 32, "%.0f", (double)x);
  int n = 0;
  for (int digits = 1; digits <= 9; digits++) {
    n = snprintf(text, 32, "%.*g", digits, (double)x);
    if (strtof(text, NULL) == x) break;
  }
  return n;
}

static int round_lines(lua_State *L) {
  size_t size;
  const char *p = luaL_checklstring(L, 1, &size), *end = p + size;
  mptl_format format = bind_check_format(L, 2);
  bind_rounding o;
  bind_check_rounding(L, &o, mptl_format_fit(format, format.auto_bias ? largest_of(p, end) : 0), 3);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  uint64_t lines = 0;
  line bad = {0};
  while (p < end) {
    mptl_exact x;
    bool pattern;
    line l = next_line(&p, end);
    if (!parse_line(l, &x, &pattern)) {
      bad = l;
      break;
    }
    uint32_t event, bits = mptl_round_exact(&x, &o.rounder, o.key, o.index + lines++, &event);
    char *text = luaL_prepbuffsize(&b, 33);
    int length = pattern ? snprintf(text, 32, "0x%08X", (unsigned)bits)
                         : print_decimal(text, mptl_bits_f32(bits));
    text[length] = '\n';
    luaL_addsize(&b, (size_t)length + 1);
  }
  luaL_pushresult(&b);
  lua_pushinteger(L, (lua_Integer)lines);
  if (bad.text == NULL) return 2;
  lua_pushlstring(L, bad.text, bad.n);
  return 3;
}

void mptl_bind_text(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"read_input", read_input}, {"round_lines", round_lines}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}

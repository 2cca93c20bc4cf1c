/* Numbers as lines of text, for filters: a line is a decimal number (strtof's, hexadecimal fractions aside) or 0x and the eight
 * digits of a binary32 pattern.
 *
 *   core.read_input(max)         -> what standard input has ready, at most max bytes (waiting for the first); nil at its end
 *   core.parse_lines(text)       -> tensor, kinds ("d" or "x" per line), and at a line that is no number: its place among them, its text
 *   core.print_lines(tensor, kinds) -> text: the shortest decimals that read back exactly, or patterns
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bindings/bind.h"
#include "kernels/round.h"

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

/* 0x and eight hexadecimal digits. */
static bool parse_pattern(const char *text, size_t n, uint32_t *bits) {
  if (n != 10 || text[0] != '0' || (text[1] != 'x' && text[1] != 'X')) return false;
  *bits = 0;
  for (size_t i = 2; i < n; i++) {
    char c = text[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return false;
    *bits = *bits << 4 | (uint32_t)digit;
  }
  return true;
}

/* The nearest binary32 of a decimal; text ends in a byte that no number contains. */
static bool parse_decimal(const char *text, size_t n, float *value) {
  char *end;
  if (n == 0 || memchr(text, 'x', n) || memchr(text, 'X', n) || memchr(text, '(', n)) return false;
  *value = strtof(text, &end);
  return end == text + n;
}

static int parse_lines(lua_State *L) {
  size_t size, lines = 0;
  const char *text = luaL_checklstring(L, 1, &size), *end = text + size;
  for (const char *p = text; p < end; lines++) {
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    p = newline ? newline + 1 : end;
  }
  int64_t dims = (int64_t)lines;
  mptl_tensor *t;
  bind_check(L, mptl_tensor_create(&t, 1, &dims));
  bind_push_tensor(L, t);
  luaL_Buffer kinds;
  char *kind = luaL_buffinitsize(L, &kinds, lines ? lines : 1);
  size_t i = 0;
  for (const char *p = text; p < end; i++) {
    const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end,
               *next = newline ? newline + 1 : end;
    while (p < stop && is_space(*p)) p++;
    while (p < stop && is_space(stop[-1])) stop--;
    uint32_t bits;
    if (parse_pattern(p, (size_t)(stop - p), &bits)) {
      t->data[i] = mptl_bits_f32(bits);
      kind[i] = 'x';
    } else if (parse_decimal(p, (size_t)(stop - p), &t->data[i])) {
      kind[i] = 'd';
    } else {
      luaL_pushresultsize(&kinds, i);
      lua_pushinteger(L, (lua_Integer)i + 1);
      lua_pushlstring(L, p, (size_t)(stop - p));
      return 4;
    }
    p = next;
  }
  luaL_pushresultsize(&kinds, i);
  return 2;
}

/* Writes an integer in full, else the shortest decimal that strtof reads back as x; returns its length. */
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

static int print_lines(lua_State *L) {
  mptl_tensor *t = bind_check_tensor(L, 1);
  size_t n;
  const char *kinds = luaL_checklstring(L, 2, &n);
  if (n > mptl_tensor_numel(t)) luaL_error(L, "print_lines: %I kinds, the tensor has fewer elements", (lua_Integer)n);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < n; i++) {
    char text[32];
    int length = kinds[i] == 'x' ? snprintf(text, sizeof text, "0x%08X", (unsigned)mptl_f32_bits(t->data[i]))
                                 : print_decimal(text, t->data[i]);
    luaL_addlstring(&b, text, (size_t)length);
    luaL_addchar(&b, '\n');
  }
  luaL_pushresult(&b);
  return 1;
}

void mptl_bind_text(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"read_input", read_input}, {"parse_lines", parse_lines}, {"print_lines", print_lines}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}

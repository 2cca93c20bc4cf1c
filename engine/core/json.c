#include "core/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEEPEST 128

char mptl_json_peek(mptl_json *j) {
  while (j->at < j->size && strchr(" \t\n\r", j->text[j->at]) != NULL && j->text[j->at] != '\0')
    j->at++;
  return j->at < j->size ? j->text[j->at] : '\0';
}

mptl_status mptl_json_fail(const mptl_json *j, const char *expected) {
  if (j->at >= j->size)
    return mptl_fail(MPTL_EDATA, "at byte %zu: ends, expected %s", j->at, expected);
  unsigned char found = (unsigned char)j->text[j->at];
  if (found > 0x20 && found < 0x7f)
    return mptl_fail(MPTL_EDATA, "at byte %zu: expected %s, found %c", j->at, expected, found);
  return mptl_fail(MPTL_EDATA, "at byte %zu: expected %s, found 0x%02x", j->at, expected, found);
}

bool mptl_json_takes(mptl_json *j, char c) {
  if (mptl_json_peek(j) != c || j->at >= j->size) return false;
  j->at++;
  return true;
}

mptl_status mptl_json_take(mptl_json *j, char c) {
  return mptl_json_takes(j, c) ? MPTL_OK : mptl_json_fail(j, (char[]){c, '\0'});
}

/* ---- Strings ---- */

/* Takes four hexadecimal digits and returns their value; -1 if the next four characters are not. */
static int take_hex(mptl_json *j) {
  int value = 0;
  for (int i = 0; i < 4; i++, j->at++) {
    char c = j->at < j->size ? j->text[j->at] : '\0';
    if (c >= '0' && c <= '9')
      value = value << 4 | (c - '0');
    else if ((c | 32) >= 'a' && (c | 32) <= 'f')
      value = value << 4 | ((c | 32) - 'a' + 10);
    else
      return -1;
  }
  return value;
}

static void put_utf8(mptl_json *j, uint32_t c) {
  char *out = j->out + j->out_at;
  int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
  out[0] = (char)(first[n] | c);
  j->out_at += (size_t)n;
}

/* Takes the digits that follow \u. A surrogate is accepted only as part of a pair. */
static mptl_status take_unicode(mptl_json *j) {
  int c = take_hex(j);
  if (c < 0) return mptl_json_fail(j, "four hexadecimal digits");
  if (c >= 0xdc00 && c <= 0xdfff)
    return mptl_json_fail(j, "the first half of a surrogate pair before the second");
  if (c >= 0xd800 && c <= 0xdbff) {
    if (j->size - j->at < 2 || j->text[j->at] != '\\' || j->text[j->at + 1] != 'u')
      return mptl_json_fail(j, "the second half of a surrogate pair");
    j->at += 2;
    int low = take_hex(j);
    if (low < 0xdc00 || low > 0xdfff)
      return mptl_json_fail(j, "the second half of a surrogate pair");
    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
  }
  put_utf8(j, (uint32_t)c);
  return MPTL_OK;
}

static mptl_status take_escape(mptl_json *j) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  char c = j->at < j->size ? j->text[j->at] : '\0';
  if (c == 'u') {
    j->at++;
    return take_unicode(j);
  }
  const char *found = c != '\0' ? strchr(names, c) : NULL;
  if (found == NULL) return mptl_json_fail(j, "an escape");
  j->at++;
  j->out[j->out_at++] = values[found - names];
  return MPTL_OK;
}

mptl_status mptl_json_string(mptl_json *j, const char **bytes, size_t *size) {
  if (!mptl_json_takes(j, '"')) return mptl_json_fail(j, "a string");
  size_t from = j->out_at;
  for (;;) {
    if (j->at >= j->size || (unsigned char)j->text[j->at] < 0x20)
      return mptl_json_fail(j, "the rest of a string");
    char c = j->text[j->at++];
    if (c == '"') break;
    if (c == '\\')
      MPTL_TRY(take_escape(j));
    else
      j->out[j->out_at++] = c;
  }
  *bytes = j->out + from;
  *size = j->out_at - from;
  return MPTL_OK;
}

/* ---- Numbers ---- */

static bool is_digit(const mptl_json *j) {
  return j->at < j->size && j->text[j->at] >= '0' && j->text[j->at] <= '9';
}

mptl_status mptl_json_number(mptl_json *j, uint64_t *number) {
  mptl_json_peek(j);
  size_t from = j->at;
  if (!is_digit(j)) return mptl_json_fail(j, "a whole number");
  *number = 0;
  for (; is_digit(j); j->at++) {
    if (j->at > from && j->text[from] == '0')
      return mptl_json_fail(j, "a number without leading zeros");
    if (__builtin_mul_overflow(*number, 10, number) ||
        __builtin_add_overflow(*number, (uint64_t)(j->text[j->at] - '0'), number))
      return mptl_json_fail(j, "a number below 2^64");
  }
  bool fraction =
      j->at < j->size && j->text[j->at] != '\0' && strchr(".eE", j->text[j->at]) != NULL;
  return fraction ? mptl_json_fail(j, "a whole number") : MPTL_OK;
}

static mptl_status skip_digits(mptl_json *j) {
  if (!is_digit(j)) return mptl_json_fail(j, "a digit");
  while (is_digit(j)) j->at++;
  return MPTL_OK;
}

static bool has(mptl_json *j, const char *any) {
  if (j->at >= j->size || j->text[j->at] == '\0' || strchr(any, j->text[j->at]) == NULL)
    return false;
  j->at++;
  return true;
}

static mptl_status skip_number(mptl_json *j) {
  size_t from = j->at;
  has(j, "-");
  if (!has(j, "0")) MPTL_TRY(skip_digits(j));
  if (has(j, ".")) MPTL_TRY(skip_digits(j));
  if (has(j, "eE")) {
    has(j, "+-");
    MPTL_TRY(skip_digits(j));
  }
  char digits[512]; /* a number must be finite in binary64; longer texts are not checked */
  size_t length = j->at - from;
  if (length >= sizeof digits) return MPTL_OK;
  memcpy(digits, j->text + from, length);
  digits[length] = '\0';
  return isfinite(strtod(digits, NULL)) ? MPTL_OK
                                        : mptl_json_fail(j, "a number that is not too large");
}

/* ---- Anything ---- */

static bool takes_word(mptl_json *j, const char *word) {
  size_t n = strlen(word);
  mptl_json_peek(j);
  if (j->size - j->at < n || memcmp(j->text + j->at, word, n) != 0) return false;
  j->at += n;
  return true;
}

bool mptl_json_null(mptl_json *j) { return takes_word(j, "null"); }

/* Takes a number, a string or a word, or the beginning of an object or list: then *opened is the
 * character that ends it, else 0. */
static mptl_status skip_one(mptl_json *j, char *opened) {
  const char *bytes;
  size_t size;
  char c = mptl_json_peek(j);
  *opened = '\0';
  if (c == '"') return mptl_json_string(j, &bytes, &size);
  if (c == '-' || is_digit(j)) return skip_number(j);
  if (takes_word(j, "true") || takes_word(j, "false") || takes_word(j, "null")) return MPTL_OK;
  if (c != '{' && c != '[') return mptl_json_fail(j, "a value");
  j->at++;
  *opened = c == '{' ? '}' : ']';
  return MPTL_OK;
}

static mptl_status skip_key(mptl_json *j) {
  const char *bytes;
  size_t size;
  MPTL_TRY(mptl_json_string(j, &bytes, &size));
  return mptl_json_take(j, ':');
}

mptl_status mptl_json_skip(mptl_json *j) {
  char ends[DEEPEST], opened;
  int depth = 0;
  for (;;) {
    MPTL_TRY(skip_one(j, &opened));
    if (opened != '\0' && !mptl_json_takes(j, opened)) {
      if (depth == DEEPEST) return mptl_json_fail(j, "at most 128 levels");
      ends[depth++] = opened;
      if (opened == '}') MPTL_TRY(skip_key(j));
      continue;
    }
    while (depth > 0 && mptl_json_takes(j, ends[depth - 1]))
      depth--; /* objects and lists that end here */
    if (depth == 0) return MPTL_OK;
    MPTL_TRY(mptl_json_take(j, ','));
    if (ends[depth - 1] == '}') MPTL_TRY(skip_key(j));
  }
}

/* ---- UTF-8 ---- */

bool mptl_utf8_is_valid(const char *bytes, size_t size) {
  const uint8_t *p = (const uint8_t *)bytes, *end = p + size;
  while (p < end) {
    int more = *p < 0x80                 ? 0
               : *p >= 0xc2 && *p < 0xe0 ? 1
               : *p >= 0xe0 && *p < 0xf0 ? 2
               : *p >= 0xf0 && *p < 0xf5 ? 3
                                         : -1;
    if (more < 0 || end - p <= more) return false;
    uint8_t first = *p++;
    for (int i = 0; i < more; i++, p++) {
      if ((*p & 0xc0) != 0x80) return false;
      bool overlong = i == 0 && ((first == 0xe0 && *p < 0xa0) || (first == 0xf0 && *p < 0x90));
      bool outside = i == 0 && ((first == 0xed && *p >= 0xa0) || (first == 0xf4 && *p >= 0x90));
      if (overlong || outside) return false;
    }
  }
  return true;
}

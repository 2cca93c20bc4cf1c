/* Reading JSON (RFC 8259) strictly, without recursion: the caller takes one token or value at a
 * time. Functions that fail return MPTL_EDATA.
 *
 * Jansson does not replace it: that library refuses integers above 2^63-1 and zero bytes in names,
 * accepts -0 as an integer and allows a fixed 2048 levels of nesting. In each of these cases the
 * reader of safetensors headers must do something else (spec/safetensors_spec.lua).
 */
#ifndef MPTL_CORE_JSON_H
#define MPTL_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef struct mptl_json {
  const char *text;
  size_t size, at;
  char *out; /* decoded strings are written here, one after the other; as large as the text */
  size_t out_at;
} mptl_json;

/* Returns the next character that is not white space, without taking it; 0 at the end. */
char mptl_json_peek(mptl_json *j);

/* Takes c, or fails with "at byte N: expected X, found Y". */
mptl_status mptl_json_take(mptl_json *j, char c);

/* Takes c if it comes next. */
bool mptl_json_takes(mptl_json *j, char c);

/* Takes a string and decodes it to *bytes, which is in j->out. The text must be UTF-8: check it
 * with mptl_utf8_is_valid. */
mptl_status mptl_json_string(mptl_json *j, const char **bytes, size_t *size);

/* Takes an unsigned 64-bit integer. */
mptl_status mptl_json_number(mptl_json *j, uint64_t *number);

/* Takes "null" if it comes next. */
bool mptl_json_null(mptl_json *j);

/* Takes any value, at most 128 levels deep. */
mptl_status mptl_json_skip(mptl_json *j);

/* Fails with "at byte N: expected X, found Y" at the current position. */
mptl_status mptl_json_fail(const mptl_json *j, const char *expected);

bool mptl_utf8_is_valid(const char *bytes, size_t size);

#endif

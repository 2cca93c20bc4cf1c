/* Inside readers of JSON (RFC 8259): steps through a text, to the letter and without recursion of its own. */
#ifndef MPTL_CORE_JSON_H
#define MPTL_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef struct mptl_json {
  const char *text;
  size_t size, at;
  char *out; /* where decoded strings go, one behind the other; as large as the text */
  size_t out_at;
} mptl_json;

/* The next character that is no space; 0 at the end. It is not taken. */
char mptl_json_peek(mptl_json *j);

/* Takes c, or fails: "at byte N: expected X, found Y". */
mptl_status mptl_json_take(mptl_json *j, char c);

/* Takes c if it comes next. */
bool mptl_json_takes(mptl_json *j, char c);

/* Takes a string, decoded: the text's own encoding has to be UTF-8, which mptl_utf8_is_valid tells. */
mptl_status mptl_json_string(mptl_json *j, const char **bytes, size_t *size);

/* Takes a whole number of 64 bits without a sign. */
mptl_status mptl_json_number(mptl_json *j, uint64_t *number);

/* Takes "null" if it comes next. */
bool mptl_json_null(mptl_json *j);

/* Takes any value, at most 128 levels deep. */
mptl_status mptl_json_skip(mptl_json *j);

/* An error at the place where the text stands. */
mptl_status mptl_json_fail(const mptl_json *j, const char *expected);

bool mptl_utf8_is_valid(const char *bytes, size_t size);

#endif

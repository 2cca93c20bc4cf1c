/* Checks and guarded memory for the dnn specs. */
#ifndef MPTL_SPEC_DNN_CHECK_H
#define MPTL_SPEC_DNN_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mptl/status.h"

static int failures;

/* Counts and reports a failure that `what` (printf arguments) describes. */
#define CHECK(condition, ...)                                       \
  do {                                                              \
    if (condition) break;                                           \
    failures++;                                                     \
    fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
    fprintf(stderr, __VA_ARGS__);                                   \
    fputc('\n', stderr);                                            \
  } while (0)

/* The status is MPTL_OK, or the program ends here with the message. */
#define MUST(expr)                                                               \
  do {                                                                           \
    if ((expr) == MPTL_OK) break;                                                \
    fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #expr, mptl_error()); \
    exit(1);                                                                     \
  } while (0)

/* The call failed with this status and a message of one line that contains every one of these
 * words. */
static inline void check_refusal(mptl_status got, mptl_status status, const char *const *words) {
  CHECK(got == status, "status %d, expected %d: %s", got, status, mptl_error());
  CHECK(strchr(mptl_error(), '\n') == NULL, "%s", mptl_error());
  for (; *words != NULL; words++)
    CHECK(strstr(mptl_error(), *words) != NULL, "\"%s\" does not mention \"%s\"", mptl_error(),
          *words);
}
#define REFUSES(call, status, ...) \
  check_refusal(call, status, (const char *const[]){__VA_ARGS__, NULL})

/* Arrays that are NaN until written, between guards: generated code is out of a sanitizer's
 * sight. */
enum { GUARD = 256 };
typedef struct array {
  unsigned char *base;
  size_t bytes;
} array;

static inline array array_create(size_t bytes) {
  array a = {aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64), bytes};
  if (a.base == NULL) abort();
  memset(a.base, 0xff, bytes + 2 * GUARD);
  return a;
}

static inline void *array_at(array a) { return a.base + GUARD; }

/* Whether the guards are intact; frees. */
static inline int array_destroy(array a) {
  int intact = 1;
  for (size_t i = 0; i < GUARD; i++)
    intact &= a.base[i] == 0xff && a.base[GUARD + a.bytes + i] == 0xff;
  free(a.base);
  return intact;
}

/* Splitmix64: test data. */
static inline uint64_t random_bits(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* What random operands look like. */
typedef enum values {
  INTEGERS, /* -3 to 3: every sum is exact */
  REALS,    /* full significands in (-1, 1) */
  NARROW,   /* 8 significant bits: exact in bf16 */
  OVERFLOW, /* as NARROW, with an infinity among the gradients of the output */
} values;

static inline float random_value(values kind, uint64_t *state) {
  uint64_t bits = random_bits(state);
  if (kind == INTEGERS) return (float)(bits % 7) - 3;
  float x = (float)(int32_t)(bits >> 32) * 0x1p-31f;
  if (kind == NARROW || kind == OVERFLOW) {
    uint32_t u;
    memcpy(&u, &x, 4);
    u &= 0xffff0000u;
    memcpy(&x, &u, 4);
  }
  return x;
}

#endif

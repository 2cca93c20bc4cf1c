/* What the list of pointwise operators (kernels/pointwise.h) says of each, on special and random
 * numbers. */
#include "kernels/pointwise.h"

#include "check.h"
#include "kernels/round.h"

enum { NUMBERS = 20000 };

static float number(int i) {
  static const float special[] = {0.0f,  -0.0f,  1.0f,    -1.0f,    6.0f,      -6.0f, 5.99f,
                                  6.01f, 1e-45f, -1e-45f, INFINITY, -INFINITY, NAN};
  const int n = (int)(sizeof special / sizeof *special);
  if (i < n) return special[i];
  return mptl_bits_f32((uint32_t)i * 2654435761u); /* all exponents */
}

typedef float unary_fn(float x);
typedef float backward_fn(float dy, float read);

static int check_traits(int traits, unary_fn *forward, backward_fn *backward) {
  const int reads = traits & (MPTL_READS_IN | MPTL_READS_OUT);
  CHECK(reads == MPTL_READS_IN || reads == MPTL_READS_OUT);
  CHECK(!(traits & MPTL_READS_EITHER) || reads == MPTL_READS_OUT);
  for (int i = 0; i < NUMBERS; i++) {
    const float x = number(i), y = forward(x), dy = number(NUMBERS - i),
                dx = backward(dy, reads == MPTL_READS_IN ? x : y);
    CHECK(!(traits & MPTL_SELECTS) || mptl_f32_bits(y) == mptl_f32_bits(x) ||
          mptl_f32_bits(y) == 0);
    CHECK(!(traits & MPTL_BACKWARD_SELECTS) || mptl_f32_bits(dx) == mptl_f32_bits(dy) ||
          mptl_f32_bits(dx) == 0);
    CHECK(!(traits & MPTL_READS_EITHER) || mptl_f32_bits(backward(dy, x)) == mptl_f32_bits(dx));
  }
  return 0;
}

int main(void) {
  int failures = 0;
#define CHECK_TRAITS(name, NAME, traits)                                \
  if (check_traits(traits, mptl_##name, mptl_##name##_backward) != 0) { \
    fprintf(stderr, "pointwise: of %s\n", #name);                       \
    failures++;                                                         \
  }
  MPTL_UNARY_OPERATORS(CHECK_TRAITS)
  return failures > 0;
}

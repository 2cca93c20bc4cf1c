/* usage: round_values N   writes the first N values that rounding is measured on to standard
 * output, as binary32. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/round_values.h"

int main(int argc, char **argv) {
  unsigned long long n = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
  if (n == 0) {
    fprintf(stderr, "usage: round_values N\n");
    return 2;
  }
  float block[4096];
  for (uint64_t from = 0; from < n; from += 4096) {
    size_t count = n - from < 4096 ? (size_t)(n - from) : 4096;
    for (size_t i = 0; i < count; i++) block[i] = mptl_bench_value(from + i);
    if (fwrite(block, sizeof(float), count, stdout) != count) return 1;
  }
  return fflush(stdout) == 0 ? 0 : 1;
}

/* Times CPFloat's rounding of an array of binary32 values; bench/round_vs_peers compiles it against
 * a checkout of CPFloat.
 *
 *   cpfloat_round PRECISION EMIN EMAX nearest_even|stochastic THREADS SECONDS OUT < VALUES
 *
 * The format has PRECISION significant bits, subnormals, exponents from EMIN to EMAX, and
 * saturates. The values come as raw binary32, the first ones go rounded to the file OUT, and one
 * JSON object to standard output: the median of repetitions over SECONDS. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpfloat_binary32.h"

enum { SHOWN = 65536, MOST = 1000 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void *must(void *p, const char *what) {
  if (p != NULL) return p;
  fprintf(stderr, "cpfloat_round: %s\n", what);
  exit(1);
}

/* All of standard input, and how many values that is. */
static float *read_values(size_t *n) {
  size_t room = 1 << 20;
  float *values = must(malloc(room * sizeof(float)), "out of memory");
  for (*n = 0;;) {
    size_t got = fread(values + *n, sizeof(float), room - *n, stdin);
    if (got == 0) return values;
    *n += got;
    if (*n == room) values = must(realloc(values, (room *= 2) * sizeof(float)), "out of memory");
  }
}

int main(int argc, char **argv) {
  if (argc != 8) {
    fprintf(stderr,
            "usage: cpfloat_round PRECISION EMIN EMAX nearest_even|stochastic THREADS SECONDS OUT "
            "< VALUES\n");
    return 2;
  }
  optstruct *format = must(init_optstruct(), "out of memory");
  strcpy(format->format, "custom");
  format->precision = (cpfloat_precision_t)atoi(argv[1]);
  format->emin = atoi(argv[2]);
  format->emax = atoi(argv[3]);
  format->explim = CPFLOAT_EXPRANGE_TARG;
  format->infinity = CPFLOAT_INF_USE;
  format->saturation = CPFLOAT_SAT_USE;
  format->subnormal = CPFLOAT_SUBN_USE;
  format->round = strcmp(argv[4], "stochastic") == 0 ? CPFLOAT_RND_SP : CPFLOAT_RND_NE;
  format->flip = CPFLOAT_SOFTERR_NO;
  format->p = 0;
  omp_set_num_threads(atoi(argv[5]));
  double seconds = atof(argv[6]);

  size_t n;
  float *values = read_values(&n),
        *rounded = must(malloc((n + 1) * sizeof(float)), "out of memory");
  cpfloatf(rounded, values, n,
           format); /* touches the memory, starts the threads, seeds the generator */
  double times[MOST];
  int count = 0;
  for (double start = now(); count < 3 || (count < MOST && now() - start < seconds); count++) {
    double from = now();
    cpfloatf(rounded, values, n, format);
    times[count] = now() - from;
  }
  qsort(times, (size_t)count, sizeof(double), ascending);

  FILE *out = must(fopen(argv[7], "wb"), argv[7]);
  size_t shown = n < SHOWN ? n : SHOWN;
  if (fwrite(rounded, sizeof(float), shown, out) != shown || fclose(out) != 0) must(NULL, argv[7]);
#ifdef PCG_VARIANTS_H_INCLUDED
  const char *generator = "PCG";
#else
  const char *generator = "CPFloat's own";
#endif
  printf("{\"gelem_per_s\":%.6g,\"repetitions\":%d,\"generator\":\"%s\"}\n",
         1e-9 * (double)n / times[count / 2], count, generator);
  free(rounded);
  free(values);
  free_optstruct(format);
  return 0;
}

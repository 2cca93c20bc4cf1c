/* Sums by channel of a gradient whose instructions read vectors by channel. The vectors end where
 * readable memory ends, so a thread beyond the last channel that reads past them ends the
 * program. */
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cuda/stage.h"
#include "operands.h"

/* n floats, after which memory is not readable. */
struct edge {
  char *pages;
  size_t bytes;
  float *at;
  explicit edge(size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bytes = (n * sizeof(float) + page - 1) / page * page + page;
    pages = (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + bytes - page, page, PROT_NONE) != 0) {
      perror("mmap");
      exit(1);
    }
    at = (float *)(pages + bytes - page) - n;
    for (size_t i = 0; i < n; i++) at[i] = random_float(&state, 1);
  }
  ~edge() { munmap(pages, bytes); }
  edge(const edge &) = delete;
};

static void sums_behind_a_batch_norm(size_t rows, size_t c) {
  size_t n = rows * c, padded = mptl_padded((uint32_t)c);
  value x = random_value(n, "FP(4,3,4)", 0, 3), dy = random_value(n, "FP(5,2,0)", 0, 2);
  edge vectors(MPTL_VECTORS * padded);
  std::vector<float> mean(c, 0.25f), inv_std(c, 2), gamma(c, 1), dgamma(c), dbeta(c),
      made(MPTL_VECTORS * padded);
  std::vector<double> partial(mptl_sums_bytes(rows, c) / sizeof(double));
  mptl_cuda_batchnorm bn = {};
  bn.mean = mean.data(), bn.inv_std = inv_std.data(), bn.gamma = gamma.data(),
  bn.dgamma = dgamma.data(), bn.dbeta = dbeta.data();
  mptl_source sources[2] = {dy.source(), x.source()};
  mptl_instruction_list list;
  memset((void *)&list, 0, sizeof list);
  list.n = 2, list.c = (uint32_t)c, list.numel = n;
  for (int j = 0; j < 2; j++) {
    list.at[j].opcode = j == 0 ? MPTL_INS_LOAD : MPTL_INS_BATCHNORM_BACKWARD;
    list.at[j].flags = MPTL_INS_READ;
    list.at[j].exponents = -1;
    list.at[j].source = mptl_source_of(&sources[j], c);
    list.at[j].vectors = vectors.at;
  }
  CHECK(mptl_batchnorm_backward_begin(&bn, &sources[1], &list, rows, c, made.data(), partial.data(),
                                      NULL) == 0,
        "refused");
  const float *v = vectors.at;
  for (size_t i = 0; i < c; i++) {
    double sum = 0, product = 0, size = 0;
    for (size_t r = i; r < n; r += c) {
      float b = (x.x[r] - v[MPTL_MEAN * padded + i]) * v[MPTL_B * padded + i];
      float g = (dy.x[r] - v[MPTL_A * padded + i] - b) * v[MPTL_SCALE * padded + i];
      sum += (double)g, product += (double)(g * (x.x[r] - 0.25f)), size += fabs((double)g) * 4;
    }
    CHECK(fabs((double)dbeta[i] - sum) <= 1e-6 * size, "dbeta %zu of %zu: %g, expected %g", i, c,
          (double)dbeta[i], sum);
    CHECK(fabs((double)dgamma[i] - 2 * product) <= 4e-6 * size,
          "dgamma %zu of %zu: %g, expected %g", i, c, (double)dgamma[i], 2 * product);
  }
}

int main(void) {
  in_both_orders([] {
    for (size_t c : {1, 8, 20, 24, 260, 264, 320})
      for (size_t rows : {1, 5, 1000}) sums_behind_a_batch_norm(rows, c);
  });
  return failures != 0;
}

/* Layer norms: binary32 results are compared with the formulas in long double; results in a format
 * must be the binary32 results, rounded, bit for bit; and the bits must be the same in both orders
 * of threads. Rows fit into shared memory or are longer, and are aligned for wide accesses or not;
 * there are one or many blocks of rows, whose parts have one row or several. */
#include "operands.h"

static const char *const formats[] = {"FP(4,3,4)", "FP(6,9,0)", "fp32"};
static const int modes[] = {MPTL_NEAREST_EVEN, MPTL_STOCHASTIC};

/* A layer norm with operands. */
struct problem {
  size_t rows, c;
  double eps;
  value x, dy;
  std::vector<float> weight, bias;
  bool has_bias;
};

/* A row's statistics by the formulas. */
struct reference {
  long double mean, inv_std;
  long double size; /* error of xhat from roundings to binary64, in last places */
};

static reference reference_of(const problem &p, size_t row) {
  const float *x = &p.x.x[row * p.c];
  long double sum = 0, squares = 0;
  for (size_t i = 0; i < p.c; i++) sum += x[i];
  reference r = {sum / p.c, 0, 0};
  for (size_t i = 0; i < p.c; i++) squares += (x[i] - r.mean) * (x[i] - r.mean);
  r.inv_std = 1 / sqrtl(squares / p.c + (long double)p.eps);
  r.size = 1 + fabsl(r.mean) * r.inv_std;
  return r;
}

static long double xhat(const problem &p, const reference &r, size_t row, size_t i) {
  return (p.x.x[row * p.c + i] - r.mean) * r.inv_std;
}

static void check_close(const char *what, float got, long double want, long double slack, size_t i,
                        const problem &p) {
  long double error = fabsl((long double)got - want),
              half = 0x1p-24L * fabsl(want); /* half of a last place */
  bool fine =
      want != want ? got != got : (long double)got == want || error <= half * 1.001L + slack;
  CHECK(fine, "%s of %zu rows of %zu: element %zu is %.9g, expected %.9Lg", what, p.rows, p.c, i,
        (double)got, want);
}

static mptl_cuda_layernorm norm_of(const problem &p) {
  mptl_cuda_layernorm norm = {};
  norm.rows = p.rows, norm.c = p.c, norm.eps = p.eps, norm.weight = p.weight.data();
  if (p.has_bias) norm.bias = p.bias.data();
  return norm;
}

/* ---- Forward ---- */

/* Runs forward into a new result, and returns its numbers. */
static std::vector<float> forward(result *y, const problem &p) {
  mptl_sink sink = sink_of(y, true);
  mptl_source source = p.x.source();
  mptl_cuda_layernorm norm = norm_of(p);
  CHECK(mptl_cuda_layernorm_forward(&sink, &source, &norm, NULL) == 0, "forward is refused");
  return read_result(y);
}

/* Checks a format, a mode and a start, and returns the results in binary32. */
static std::vector<float> check_forward(const problem &p, const char *format, int mode,
                                        size_t start) {
  size_t n = p.rows * p.c;
  result exact = make_result(n, "fp32", MPTL_NEAREST_EVEN, false, 0),
         y = make_result(n, format, mode, false, start);
  std::vector<float> got = forward(&exact, p);
  for (size_t r = 0; r < p.rows; r++) {
    reference ref = reference_of(p, r);
    for (size_t i = 0; i < p.c; i++) {
      long double scaled = xhat(p, ref, r, i) * p.weight[i], bias = p.has_bias ? p.bias[i] : 0;
      check_close("layer norm", got[r * p.c + i], scaled + bias,
                  1e-13L * (ref.size * fabsl((long double)p.weight[i]) + fabsl(bias)), r * p.c + i,
                  p);
    }
  }
  forward(&y, p);
  expect(&exact, got), expect(&y, got);
  check_result("layer norm in binary32", &exact, true);
  check_result("layer norm", &y, true);
  return got;
}

/* ---- Backward ---- */

/* Runs backward. wanted: computes dx. dweight, dbias: NULL: they are not computed. */
static void backward(result *dx, bool wanted, const problem &p, std::vector<float> *dweight,
                     std::vector<float> *dbias) {
  mptl_sink sink = sink_of(dx, true);
  mptl_source x = p.x.source(), dy = p.dy.source();
  mptl_cuda_layernorm norm = norm_of(p);
  size_t bytes = mptl_cuda_layernorm_scratch(p.rows, p.c);
  std::vector<double> scratch(bytes / sizeof(double) + 1, NAN);
  if (dweight != NULL) norm.dweight = dweight->data();
  if (dbias != NULL) norm.dbias = dbias->data();
  if (!wanted) sink = mptl_sink{};
  CHECK(mptl_cuda_layernorm_backward(&sink, &x, &dy, &norm, scratch.data(), NULL) == 0,
        "backward is refused");
  CHECK(bytes % sizeof(double) == 0 && isnan(scratch.back()),
        "wrote behind its %zu bytes of scratch memory", bytes);
}

static void check_dx(const std::vector<float> &got, const problem &p) {
  for (size_t r = 0; r < p.rows; r++) {
    reference ref = reference_of(p, r);
    long double sum = 0, products = 0, size = 0;
    for (size_t i = 0; i < p.c; i++) {
      long double g = (long double)p.dy.x[r * p.c + i] * p.weight[i], h = xhat(p, ref, r, i);
      sum += g, products += g * h, size += fabsl(g) * (1 + fabsl(h));
    }
    for (size_t i = 0; i < p.c; i++) {
      long double g = (long double)p.dy.x[r * p.c + i] * p.weight[i], h = xhat(p, ref, r, i);
      check_close("dx", got[r * p.c + i], ref.inv_std * (g - sum / p.c - h * products / p.c),
                  1e-13L * ref.inv_std * (size + fabsl(g)) * (1 + fabsl(h)) * ref.size, r * p.c + i,
                  p);
    }
  }
}

static void check_parameters(const std::vector<float> &dweight, const std::vector<float> &dbias,
                             const problem &p) {
  std::vector<long double> products(p.c), sums(p.c), product_sizes(p.c), sizes(p.c);
  for (size_t r = 0; r < p.rows; r++) {
    reference ref = reference_of(p, r);
    for (size_t i = 0; i < p.c; i++) {
      long double d = p.dy.x[r * p.c + i], h = xhat(p, ref, r, i);
      products[i] += d * h, product_sizes[i] += fabsl(d) * (1 + fabsl(h)) * ref.size;
      sums[i] += d, sizes[i] += fabsl(d);
    }
  }
  for (size_t i = 0; i < p.c; i++) {
    check_close("dweight", dweight[i], products[i], 1e-13L * product_sizes[i], i, p);
    check_close("dbias", dbias[i], sums[i], 1e-13L * sizes[i], i, p);
  }
}

/* Checks backward, and returns all results in binary32. */
static std::vector<float> check_backward(const problem &p, const char *format, int mode,
                                         bool accumulate, size_t start) {
  size_t n = p.rows * p.c;
  result exact = make_result(n, "fp32", MPTL_NEAREST_EVEN, false, 0),
         dx = make_result(n, format, mode, accumulate, start);
  result none = make_result(n, "fp32", MPTL_NEAREST_EVEN, false, 0);
  std::vector<float> dweight(p.c), dbias(p.c), same_dweight(p.c), same_dbias(p.c);
  backward(&exact, true, p, &dweight, &dbias);
  std::vector<float> got = read_result(&exact);
  check_dx(got, p);
  check_parameters(dweight, dbias, p);
  backward(&dx, true, p, NULL, NULL);
  expect(&exact, got), expect(&dx, got);
  check_result("dx in binary32", &exact, true);
  check_result("dx", &dx, true);
  backward(&none, false, p, &same_dweight, &same_dbias);
  for (size_t i = 0; i < p.c; i++)
    CHECK(same_value(dweight[i], same_dweight[i]) && same_value(dbias[i], same_dbias[i]),
          "without dx: another gradient %zu", i);
  got.insert(got.end(), dweight.begin(), dweight.end());
  got.insert(got.end(), dbias.begin(), dbias.end());
  return got;
}

/* ---- Cases ---- */

static std::vector<float> numbers(size_t n, float scale) {
  std::vector<float> x(n);
  for (float &v : x) v = random_float(&state, scale);
  return x;
}

/* Results of each case with the first order of threads. Results with the other order must equal
 * them. */
static std::vector<std::vector<float>> before;
static size_t cases;

static void check_same(const std::vector<float> &got, const problem &p) {
  if (cases == before.size()) before.push_back(got);
  const std::vector<float> &want = before[cases++];
  for (size_t i = 0; i < got.size(); i++)
    CHECK(same_value(got[i], want[i]),
          "%zu rows of %zu: result %zu depends on the order of threads", p.rows, p.c, i);
}

static void check(const problem &p, size_t turn) {
  size_t start = turn % 5;
  check_same(check_forward(p, formats[(turn + turn / 3) % 3], modes[turn % 2], start), p);
  check_same(
      check_backward(p, formats[(turn + turn / 3) % 3], modes[turn % 2], turn % 4 == 3, start), p);
}

static void shapes(void) {
  const size_t sizes[][2] = {{1, 1},     {7, 1},    {1, 5},    {300, 5},  {2100, 6},
                             {40, 31},   {9, 32},   {17, 33},  {130, 96}, {3, 256},
                             {1030, 40}, {5, 1000}, {2, 1024}, {3, 1500}};
  size_t turn = 0;
  for (const size_t *size : sizes) {
    size_t rows = size[0], c = size[1], n = rows * c;
    problem p = {rows,
                 c,
                 turn % 3 == 0 ? 1e-5 : 1e-3,
                 random_value(n, formats[turn % 3], turn % 5, 4),
                 random_value(n, formats[(turn + 1) % 3], turn % 3, 2),
                 numbers(c, 2),
                 numbers(c, 1),
                 turn % 4 != 2};
    check(p, turn++);
  }
}

/* Rows with a number that is not finite, with equal elements, or with a mean that is large beside
 * the deviation. */
static void special(void) {
  for (size_t c : {2, 11, 300, 1100}) {
    const size_t rows = 6;
    std::vector<float> x = numbers(rows * c, 3);
    for (size_t i = 0; i < c; i++) {
      x[0 * c + i] = 0.75f;
      x[1 * c + i] = 0;
      x[2 * c + i] = 4096 + (float)(i % 2);
    }
    x[3 * c] = NAN, x[4 * c + c / 2] = INFINITY, x[5 * c] = 1e30f;
    problem p = {rows,
                 c,
                 1e-5,
                 value_of(x, "fp32", 1),
                 random_value(rows * c, "fp32", 0, 2),
                 numbers(c, 2),
                 numbers(c, 1),
                 true};
    check(p, c);
  }
}

static void nothing(void) {
  mptl_cuda_layernorm norm = {};
  mptl_sink sink = {};
  mptl_source source = {};
  CHECK(mptl_cuda_layernorm_forward(&sink, &source, &norm, NULL) == 0, "no rows are refused");
  CHECK(mptl_cuda_layernorm_backward(&sink, &source, &source, &norm, NULL, NULL) == 0,
        "no rows are refused");
}

int main(void) {
  in_both_orders([] {
    state = 77, cases = 0;
    shapes();
    special();
    nothing();
  });
  return failures != 0;
}

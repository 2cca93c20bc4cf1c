/* Stages, sums by channel and the update, compared with loops over the same formulas in the CPU's
 * order: element-wise results and statistics bit for bit in all rounding modes, sums by channel
 * within a bound. Lengths may be odd, starts misaligned. */
#include "operands.h"

#include "kernels/pointwise.h"

/* ---- Stages ---- */

static mptl_cuda_op op_of(mptl_op_id kind, int from0, int from1) {
  mptl_cuda_op op = {};
  op.id = kind;
  op.n_in = kind == MPTL_OP_ADD || kind == MPTL_OP_MUL ? 2 : 1;
  op.from[0] = from0, op.from[1] = from1;
  return op;
}

static const char *const narrow[] = {"FP(4,3,4)", "FP(6,9,0)", "fp32", "FP(8,7,4)"};

/* The pointwise operators but batch norm, which has sums, and dropout, which has a mask. */
static const mptl_op_id pointwise[] = {
#define UNARY(name, NAME, traits) MPTL_OP_##NAME,
    MPTL_UNARY_OPERATORS(UNARY)
#undef UNARY
        MPTL_OP_ADD,
    MPTL_OP_MUL};

/* The vectors by channel of a batch norm. */
struct norm {
  std::vector<float> gamma, beta, mean, inv_std, running_mean, running_var, dgamma, dbeta;
  explicit norm(size_t c)
      : gamma(c),
        beta(c),
        mean(c),
        inv_std(c),
        running_mean(c),
        running_var(c),
        dgamma(c),
        dbeta(c) {
    for (size_t i = 0; i < c; i++) {
      gamma[i] = 1 + random_float(&state, 0.5f), beta[i] = random_float(&state, 0.5f);
      running_mean[i] = random_float(&state, 1), running_var[i] = 1 + random_float(&state, 0.5f);
    }
  }
  mptl_cuda_batchnorm get() {
    return {gamma.data(),       beta.data(),   mean.data(),  inv_std.data(), running_mean.data(),
            running_var.data(), dgamma.data(), dbeta.data(), 1e-5,           0.1};
  }
};

/* Mean and inverse standard deviation are right, within the error of sums in binary32. */
static void check_moments(const norm &n, const value &x, size_t c) {
  size_t rows = x.x.size() / c;
  for (size_t i = 0; i < c; i++) {
    double sum = 0, squares = 0;
    for (size_t r = 0; r < rows; r++) sum += (double)x.x[r * c + i];
    for (size_t r = 0; r < rows; r++)
      squares += pow((double)x.x[r * c + i] - sum / (double)rows, 2);
    double inv = 1 / sqrt(squares / (double)rows + 1e-5);
    CHECK(fabs((double)n.mean[i] - sum / (double)rows) < 1e-5,
          "mean of channel %zu: %g, expected %g", i, (double)n.mean[i], sum / (double)rows);
    CHECK(fabs((double)n.inv_std[i] / inv - 1) < 1e-4, "deviation of channel %zu", i);
  }
}

/* relu(add(bn(a), bn(b))) forward and backward: two norms, two branches. */
static void residual(size_t rows, size_t c, const char *format, int mode, size_t start,
                     bool train) {
  size_t n = rows * c;
  value a = random_value(n, format, start, 3), b = random_value(n, "FP(5,2,0)", 0, 3);
  result y[4] = {
      make_result(n, format, mode, false, start), make_result(n, "FP(6,9,0)", mode, false, 0),
      make_result(n, format, mode, false, 0), make_result(n, format, mode, false, start)};
  norm norms[2] = {norm(c), norm(c)};
  mptl_cuda_op ops[4] = {op_of(MPTL_OP_BATCHNORM2D, -1, -1), op_of(MPTL_OP_BATCHNORM2D, -1, -1),
                         op_of(MPTL_OP_ADD, 0, 1), op_of(MPTL_OP_RELU, 2, -1)};
  ops[0].in[0] = a.source(), ops[1].in[0] = b.source();
  for (int k = 0; k < 2; k++) ops[k].bn = norms[k].get();
  for (int j = 0; j < 4; j++) ops[j].y = sink_of(&y[j], j == 3);
  mptl_cuda_stage st = {4, ops, n, c, train, {}, NULL};
  std::vector<double> scratch(mptl_cuda_stage_scratch(&st) / 8 + 2);
  st.scratch = (void *)(((uintptr_t)scratch.data() + 15) / 16 * 16);
  CHECK(mptl_cuda_stage_forward(&st, NULL) == 0, "forward is refused");
  std::vector<float> values[2], sum(n), out;
  for (int k = 0; k < 2; k++) {
    const norm &m = norms[k];
    const value &x = k == 0 ? a : b;
    if (train) check_moments(m, x, c);
    std::vector<float> v(n);
    for (size_t i = 0; i < n; i++) {
      float scale = m.inv_std[i % c] * m.gamma[i % c];
      v[i] = x.x[i] * scale + (m.beta[i % c] - m.mean[i % c] * scale);
    }
    values[k] = expect(&y[k], v);
  }
  for (size_t i = 0; i < n; i++) sum[i] = values[0][i] + values[1][i];
  out = expect(&y[2], sum);
  for (float &x : out) x = x <= 0 ? 0.0f : x;
  expect(&y[3], out);
  for (int j = 0; j < 4; j++) check_result("residual forward", &y[j], j == 3);
  if (!train) return;

  value dy = random_value(n, "FP(5,2,0)", start, 2), kept = random_value(n, format, 0, 1);
  result g[5] = {make_result(n, "FP(5,2,0)", mode, true, 0),
                 make_result(n, format, mode, false, start), make_result(n, format, mode, false, 0),
                 make_result(n, n % 3 == 0 ? format : "FP(6,9,0)", mode, false, 0),
                 make_result(n, "FP(5,2,0)", mode, false, 0)};
  ops[0].dx[0] = sink_of(&g[0], true), ops[1].dx[0] = sink_of(&g[1], true);
  ops[2].dx[0] = sink_of(&g[2], false), ops[2].dx[1] = sink_of(&g[3], false),
  ops[3].dx[0] = sink_of(&g[4], false);
  ops[3].out = kept.source(), st.dy = dy.source();
  CHECK(mptl_cuda_stage_backward(&st, NULL) == 0, "backward is refused");
  std::vector<float> masked(n);
  for (size_t i = 0; i < n; i++) masked[i] = kept.x[i] <= 0 ? 0.0f : dy.x[i];
  masked = expect(&g[4], masked);
  for (int k = 0; k < 2; k++) {
    const norm &m = norms[k];
    const value &x = k == 0 ? a : b;
    std::vector<float> d = expect(&g[2 + k], masked), dx(n);
    for (size_t i = 0; i < c; i++) {
      double sum_dy = 0, sum_dyx = 0, size = 0;
      for (size_t r = i; r < n; r += c) {
        sum_dy += (double)d[r];
        sum_dyx += (double)(d[r] * (x.x[r] - m.mean[i]));
        size += fabs((double)d[r]) * (1 + fabs((double)(x.x[r] - m.mean[i])));
      }
      double inv = (double)m.inv_std[i], slack = 1e-6 * size * (1 + inv);
      CHECK(fabs((double)m.dbeta[i] - sum_dy) <= slack + 1e-9,
            "dbeta of channel %zu: %g, expected %g", i, (double)m.dbeta[i], sum_dy);
      CHECK(fabs((double)m.dgamma[i] - sum_dyx * inv) <= slack + 1e-9, "dgamma of channel %zu", i);
    }
    /* Not compared bit for bit: the kernel's sums differ from the sums in binary64 in the last
     * places. */
    for (size_t i = 0; i < n; i++) {
      double inv = (double)m.inv_std[i % c], xhat = (double)(x.x[i] - m.mean[i % c]) * inv;
      dx[i] = (float)(inv * (double)m.gamma[i % c] *
                      ((double)d[i] - (double)m.dbeta[i % c] / (double)rows -
                       xhat * (double)m.dgamma[i % c] / (double)rows));
    }
    if (!g[k].rounder.is_identity || g[k].accumulate) continue;
    for (size_t i = 0; i < n; i++) {
      float got;
      memcpy(&got, g[k].bytes.data() + (g[k].start + i) * 4, 4);
      CHECK(fabsf(got - dx[i]) <= 1e-5f * (1 + fabsf(dx[i])), "dx %zu: %a, expected %a", i,
            (double)got, (double)dx[i]);
    }
  }
  check_result("relu's gradient", &g[4], false);
  check_result("add's gradients", &g[2], false);
  check_result("add's gradients", &g[3], false);
}

static bool dropped(mptl_key key, size_t i, double p) {
  return (double)mptl_random_uniform(key, i) < p;
}

/* dropout(relu6(mul(a, add(b, sigmoid(c))))) in evaluation and training, bit for bit: both use the
 * host's exp. */
static void chain(size_t rows, size_t c, const char *format, int mode, size_t start, bool train) {
  size_t n = rows * c;
  value in[3] = {random_value(n, format, start, 3), random_value(n, "FP(4,3,4)", 0, 3),
                 random_value(n, "fp32", start, 3)};
  std::vector<result> y;
  for (int j = 0; j < 5; j++)
    y.push_back(make_result(n, j % 2 ? format : "FP(6,9,0)", mode, false, j == 4 ? start : 0));
  mptl_cuda_op ops[5] = {op_of(MPTL_OP_SIGMOID, -1, -1), op_of(MPTL_OP_ADD, -1, 0),
                         op_of(MPTL_OP_MUL, -1, 1), op_of(MPTL_OP_RELU6, 2, -1),
                         op_of(MPTL_OP_DROPOUT, 3, -1)};
  ops[0].in[0] = in[2].source(), ops[1].in[0] = in[1].source(), ops[2].in[0] = in[0].source();
  ops[4].p = 0.3, ops[4].mask = mptl_make_key(4, MPTL_STREAM_DROPOUT, 2, 1);
  for (int j = 0; j < 5; j++) ops[j].y = sink_of(&y[(size_t)j], j == 4);
  mptl_cuda_stage st = {5, ops, n, c, train, {}, NULL};
  std::vector<double> scratch(mptl_cuda_stage_scratch(&st) / 8 + 2);
  st.scratch = (void *)(((uintptr_t)scratch.data() + 15) / 16 * 16);
  CHECK(mptl_cuda_stage_forward(&st, NULL) == 0, "forward is refused");
  std::vector<float> v(n);
  for (size_t i = 0; i < n; i++) v[i] = (float)(1.0 / (1.0 + exp(-(double)in[2].x[i])));
  v = expect(&y[0], v);
  for (size_t i = 0; i < n; i++) v[i] = in[1].x[i] + v[i];
  v = expect(&y[1], v);
  for (size_t i = 0; i < n; i++) v[i] = in[0].x[i] * v[i];
  v = expect(&y[2], v);
  for (float &x : v) x = x <= 0 ? 0.0f : x >= 6 ? 6.0f : x;
  v = expect(&y[3], v);
  for (size_t i = 0; i < n && train; i++)
    v[i] = dropped(ops[4].mask, i, 0.3) ? 0.0f : v[i] * (float)(1.0 / 0.7);
  expect(&y[4], v);
  for (size_t j = 0; j < 5; j++) check_result("chain", &y[j], j == 4);
}

/* A stage of one operator of kernels/pointwise.h, forward. */
template <typename Function>
static void forward_of_one(mptl_op_id kind, Function function, size_t n, const char *format,
                           int mode, size_t start) {
  value x = random_value(n, format, start, 8);
  result y = make_result(n, "FP(6,9,0)", mode, false, start);
  mptl_cuda_op op = op_of(kind, -1, -1);
  op.in[0] = x.source(), op.y = sink_of(&y, true);
  mptl_cuda_stage st = {1, &op, n, n % 8 == 0 ? (size_t)8 : (size_t)1, true, {}, NULL};
  std::vector<double> scratch(mptl_cuda_stage_scratch(&st) / 8 + 2);
  st.scratch = (void *)(((uintptr_t)scratch.data() + 15) / 16 * 16);
  CHECK(mptl_cuda_stage_forward(&st, NULL) == 0, "forward is refused");
  std::vector<float> want(n);
  for (size_t i = 0; i < n; i++) want[i] = function(x.x[i]);
  expect(&y, want);
  check_result("output", &y, true);
}

/* The gradient of an operator's k-th input. */
static float gradient(const mptl_cuda_op &op, int k, size_t i, float dy, const float *x,
                      float out) {
  switch (op.id) {
#define UNARY_GRADIENT(name, NAME, traits) \
  case MPTL_OP_##NAME:                     \
    return mptl_##name##_backward(dy, (MPTL_READS_IN & (traits)) ? x[0] : out);
    MPTL_UNARY_OPERATORS(UNARY_GRADIENT)
#undef UNARY_GRADIENT
    case MPTL_OP_DROPOUT:
      return dropped(op.mask, i, 0.5) ? 0.0f : dy * 2.0f;
    case MPTL_OP_MUL:
      return dy * x[1 - k];
    default:
      return dy;
  }
}

/* A stage of one operator, backward, with the gradients of all its inputs. */
static void backward_of_one(mptl_op_id kind, size_t n, const char *format, int mode, size_t start) {
  value x[2] = {random_value(n, format, start, 8), random_value(n, "FP(6,9,0)", 0, 8)},
        out = random_value(n, format, 0, 8), dy = random_value(n, "FP(5,2,0)", start, 2);
  result g[2] = {make_result(n, format, mode, false, start),
                 make_result(n, "FP(5,2,0)", mode, true, start)};
  mptl_cuda_op op = op_of(kind, -1, -1);
  for (int k = 0; k < op.n_in; k++) op.in[k] = x[k].source(), op.dx[k] = sink_of(&g[k], true);
  op.out = out.source(), op.p = 0.5, op.mask = mptl_make_key(4, MPTL_STREAM_DROPOUT, 2, 1);
  mptl_cuda_stage st = {1, &op, n, n % 8 == 0 ? (size_t)8 : (size_t)1, true, dy.source(), NULL};
  std::vector<double> scratch(mptl_cuda_stage_scratch(&st) / 8 + 2);
  st.scratch = (void *)(((uintptr_t)scratch.data() + 15) / 16 * 16);
  CHECK(mptl_cuda_stage_backward(&st, NULL) == 0, "backward is refused");
  for (int k = 0; k < op.n_in; k++) {
    std::vector<float> want(n);
    for (size_t i = 0; i < n; i++) {
      const float inputs[2] = {x[0].x[i], x[1].x[i]};
      want[i] = gradient(op, k, i, dy.x[i], inputs, out.x[i]);
    }
    expect(&g[k], want);
    check_result("gradient", &g[k], true);
  }
}

/* Runs a stage of these operators, and returns all that it writes: results, gradients, statistics.
 * The input of a batch norm is in memory, and so is the second input of an addition, unless it
 * follows two batch norms. */
static std::vector<uint8_t> run_stage(const std::vector<mptl_op_id> &kinds, size_t rows, size_t c,
                                      const char *format, bool exponents) {
  size_t n = rows * c, count = kinds.size();
  uint64_t before = state;
  counts_exponents = exponents;
  std::vector<mptl_cuda_op> ops;
  std::vector<value> in, out;
  std::vector<result> y, dx;
  std::vector<norm> norms;
  for (size_t j = 0; j < count; j++) {
    norms.emplace_back(c);
    in.push_back(random_value(n, format, 0, 4));
    out.push_back(random_value(n, format, 0, 1));
    y.push_back(make_result(n, j % 2 ? format : "FP(6,9,0)", MPTL_NEAREST_EVEN, false, 0));
    for (int k = 0; k < 2; k++)
      dx.push_back(make_result(n, k ? "FP(5,2,0)" : format, MPTL_NEAREST_EVEN, false, 0));
  }
  value dy = random_value(n, "FP(5,2,0)", 0, 2);
  for (size_t j = 0; j < count; j++) {
    bool first = j == 0 || kinds[j] == MPTL_OP_BATCHNORM2D,
         both = kinds[j] == MPTL_OP_ADD && j == 2;
    mptl_cuda_op op = op_of(kinds[j], first ? -1 : both ? 0 : (int)j - 1, both ? 1 : -1);
    op.in[0] = op.in[1] = in[j].source(), op.out = out[j].source(), op.bn = norms[j].get();
    op.y = sink_of(&y[j], j == count - 1);
    for (int k = 0; k < op.n_in; k++) op.dx[k] = sink_of(&dx[2 * j + (size_t)k], op.from[k] < 0);
    ops.push_back(op);
  }
  mptl_cuda_stage st = {(int)count, ops.data(), n, c, true, dy.source(), NULL};
  std::vector<double> scratch(mptl_cuda_stage_scratch(&st) / 8 + 2);
  st.scratch = (void *)(((uintptr_t)scratch.data() + 15) / 16 * 16);
  CHECK(mptl_cuda_stage_forward(&st, NULL) == 0, "forward is refused");
  CHECK(mptl_cuda_stage_backward(&st, NULL) == 0, "backward is refused");
  std::vector<uint8_t> all;
  auto add = [&all](const void *p, size_t bytes) {
    all.insert(all.end(), (const uint8_t *)p, (const uint8_t *)p + bytes);
  };
  for (const auto *list : {&y, &dx})
    for (const result &r : *list)
      add(r.bytes.data(), r.bytes.size()), add(&r.stats, sizeof r.stats);
  for (const norm &m : norms)
    for (const auto *list : {&m.mean, &m.inv_std, &m.running_mean, &m.dgamma, &m.dbeta})
      add(list->data(), list->size() * 4);
  counts_exponents = true;
  state = before;
  return all;
}

/* With exponents counted a stage runs on the general kernel, without on a specialised one. Both
 * write the same bytes. */
static void specialised_stages(void) {
  const mptl_op_id bn = MPTL_OP_BATCHNORM2D, relu = MPTL_OP_RELU, add = MPTL_OP_ADD;
  const std::vector<mptl_op_id> stages[] = {
      {bn}, {bn, relu}, {bn, add}, {bn, add, relu}, {bn, bn, add, relu}};
  static const size_t shapes[][2] = {{67, 64}, {3, 304}, {2100, 24}, {2500, 8}};
  for (const auto &kinds : stages)
    for (const char *format :
         {"FP(4,3,4)", "FP(3,2,2)", "FP(6,9,0)", "fp8_e4m3fn", "fp8_e5m2", "fp32"})
      for (const auto &shape : shapes) {
        bool same = run_stage(kinds, shape[0], shape[1], format, true) ==
                    run_stage(kinds, shape[0], shape[1], format, false);
        CHECK(same, "%zu operators, %zu x %zu in %s", kinds.size(), shape[0], shape[1], format);
        random_bits(&state);
      }
}

static void stages(void) {
  static const size_t shapes[][2] = {{2, 1},   {5, 3},   {7, 8},    {31, 58},
                                     {67, 64}, {3, 300}, {700, 24}, {257, 7}};
  size_t turn = 0;
  for (const auto &shape : shapes)
    for (int mode = 0; mode <= MPTL_STOCHASTIC; mode++, turn++) {
      const char *format = narrow[turn % 4];
      residual(shape[0], shape[1], format, mode, turn % 3, true);
      residual(shape[0], shape[1], format, mode, turn % 3, turn % 2);
      chain(shape[0], shape[1], format, mode, turn % 5, turn % 2);
    }
  for (size_t c :
       {7, 24, 58, 96}) { /* more than two turns of all threads, each turn at other channels */
    residual(70000 / c, c, "FP(4,3,4)", MPTL_NEAREST_EVEN, 1, true);
    residual(70000 / c, c, "fp32", MPTL_NEAREST_EVEN, 0, false);
  }
  for (mptl_op_id kind : pointwise)
    for (int mode = 0; mode <= MPTL_STOCHASTIC; mode++, turn++)
      backward_of_one(kind, turn % 2 ? 1 + turn * 37 : 5003, narrow[turn % 4], mode, turn % 5);
  for (int mode = 0; mode <= MPTL_STOCHASTIC; mode++, turn++) {
#define UNARY_FORWARD(name, NAME, traits)                                                        \
  forward_of_one(MPTL_OP_##NAME, mptl_##name, turn % 2 ? 1 + turn * 37 : 5003, narrow[turn % 4], \
                 mode, turn % 5);
    MPTL_UNARY_OPERATORS(UNARY_FORWARD)
#undef UNARY_FORWARD
  }
  counts_exponents = false; /* plain kernels, if the format allows it */
  static const size_t plain[][2] = {{7, 8}, {67, 64}, {3, 304}, {700, 24}};
  for (const auto &shape : plain)
    for (const char *format :
         {"FP(4,3,4)", "FP(5,2,0)", "FP(6,9,0)", "fp8_e4m3fn", "fp32", "bf16"}) {
      residual(shape[0], shape[1], format, MPTL_NEAREST_EVEN, 0, true);
      residual(shape[0], shape[1], format, MPTL_NEAREST_EVEN, 16, false);
      for (mptl_op_id kind : pointwise)
        backward_of_one(kind, shape[0] * shape[1], format, MPTL_NEAREST_EVEN, 16);
    }
  counts_exponents = true;
  mptl_cuda_op bad[2] = {op_of(MPTL_OP_RELU, -1, -1), op_of(MPTL_OP_RELU, -1, -1)};
  mptl_cuda_stage st = {2, bad, 8, 1, false, {}, NULL};
  CHECK(mptl_cuda_stage_forward(&st, NULL) == 1, "an operator that nobody reads");
  bad[1].from[0] = 1;
  CHECK(mptl_cuda_stage_forward(&st, NULL) == 1, "an operator that reads itself");
  st.n = MPTL_CUDA_STAGE_OPS + 1;
  CHECK(mptl_cuda_stage_forward(&st, NULL) == 1, "too many operators");
}

static void bias_gradients(void) {
  for (size_t c : {1, 10, 64, 300})
    for (size_t rows : {1, 2, 63, 1000, 5000}) {
      value dy = random_value(rows * c, "FP(5,2,0)", 1, 2);
      std::vector<float> dbias(c + 1, 7);
      std::vector<double> scratch(mptl_cuda_bias_gradient_scratch(rows, c) / 8 + 1);
      mptl_source source = dy.source();
      mptl_cuda_bias_gradient(dbias.data(), &source, rows, c, scratch.data(), NULL);
      for (size_t i = 0; i < c; i++) {
        double sum = 0, size = 0;
        for (size_t r = i; r < rows * c; r += c)
          sum += (double)dy.x[r], size += fabs((double)dy.x[r]);
        CHECK(fabs((double)dbias[i] - sum) <= 1e-6 * size,
              "bias %zu of %zu, %zu rows: %g, expected %g", i, c, rows, (double)dbias[i], sum);
      }
      CHECK(dbias[c] == 7, "wrote behind the bias");
    }
}

/* Sizes near an access and a chunk; the arrays of a parameter are all aligned to 16 bytes, all
 * equally misaligned, or differently. */
static void updates(void) {
  static const size_t sizes[] = {1, 0, 7, 8, 9, 2047, 2048, 0, 2049, 16384, 16387, 40000, 3};
  static const size_t shifts[][3] = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2},
                                     {4, 0, 4}, {0, 0, 3}, {0, 1, 0}};
  for (const size_t *shift : shifts)
    for (bool first : {true, false}) {
      std::vector<std::vector<float>> p, buf, g, want_p, want_buf;
      std::vector<mptl_cuda_param> params;
      for (size_t n : sizes) {
        for (auto *list : {&p, &buf, &g}) {
          list->emplace_back(n + 5);
          for (float &x : list->back()) x = random_float(&state, 1);
        }
      }
      want_p = p, want_buf = buf;
      for (size_t i = 0; i < p.size(); i++)
        params.push_back({p[i].data() + shift[0],
                          {buf[i].data() + shift[1]},
                          g[i].data() + shift[2],
                          sizes[i],
                          (int)(i % 2),
                          0});
      const mptl_factors factors[2] = {{1.0f / 1024, {0.1f, first ? 0.0f : 0.9f, 5e-4f}},
                                       {0.5f / 1024, {0.2f, 0.5f, 0.0f}}};
      size_t chunks = mptl_cuda_plan_params(params.data(), params.size());
      uint32_t flag = 0, skip = 1;
      mptl_cuda_update(MPTL_OPTIMIZER_SGD, params.data(), params.size(), chunks, factors, 2, &skip,
                       NULL);
      CHECK(p == want_p && buf == want_buf, "a skipped update changed parameters");
      mptl_cuda_update(MPTL_OPTIMIZER_SGD, params.data(), params.size(), chunks, factors, 2, NULL,
                       NULL);
      for (size_t i = 0; i < p.size(); i++)
        for (size_t k = 0; k < sizes[i]; k++) /* the definition */
          mptl_update_sgd(&want_p[i][k + shift[0]], &want_buf[i][k + shift[1]], g[i][k + shift[2]],
                          &factors[i % 2]);
      CHECK(p == want_p && buf == want_buf, "the update differs");
      std::vector<double> squares(chunks);
      double sum = 0, want_sum = 0;
      mptl_cuda_sum_squares(squares.data(), params.data(), params.size(), chunks, NULL);
      for (double x : squares) sum += x;
      for (size_t i = 0; i < g.size(); i++)
        for (size_t k = 0; k < sizes[i]; k++) want_sum += pow((double)g[i][k + shift[2]], 2);
      CHECK(fabs(sum / want_sum - 1) < 1e-12, "the sum of squares is %g, expected %g", sum,
            want_sum);
      for (std::vector<float> &x : g) /* outside the gradients */
        for (size_t k = 0; k < 5; k++) (k < shift[2] ? x[k] : x[x.size() - 5 + k]) = NAN;
      mptl_cuda_find_nonfinite_gradients(&flag, params.data(), params.size(), chunks, NULL);
      CHECK(flag == 0, "finite gradients");
      for (size_t i = 0; i < p.size(); i++)
        for (size_t k : {(size_t)0, sizes[i] / 2, sizes[i] - 1}) {
          if (sizes[i] == 0) continue;
          float *bad = &g[i][k + shift[2]], kept = *bad;
          *bad = first ? NAN : -INFINITY;
          flag = 0;
          mptl_cuda_find_nonfinite_gradients(&flag, params.data(), params.size(), chunks, NULL);
          CHECK(flag == 1, "gradient %zu of %zu is not finite", k, sizes[i]);
          *bad = kept;
        }
    }
}

int main(void) {
  in_both_orders([] {
    stages();
    specialised_stages();
    bias_gradients();
    updates();
  });
  return failures != 0;
}

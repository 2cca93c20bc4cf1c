/* log_softmax and the losses compared with the formulas, whose sums are in long double. Results in
 * a format must be the binary32 results, rounded, bit for bit. Rows fit into shared memory or are
 * longer, and are aligned for wide accesses or not. */
#include "operands.h"

static const char *const formats[] = {"FP(4,3,4)", "FP(6,9,0)", "fp32"};
static const int modes[] = {MPTL_NEAREST_EVEN, MPTL_STOCHASTIC};

static void check_close(const char *what, float got, long double want, long double slack, size_t i,
                        size_t classes) {
  long double error = fabsl((long double)got - want),
              half = 0x1p-24L * fabsl(want); /* half of a last place */
  bool fine =
      want != want ? got != got : (long double)got == want || error <= half * 1.001L + slack;
  CHECK(fine, "%s of %zu classes: element %zu is %.9g, expected %.9Lg", what, classes, i,
        (double)got, want);
}

/* ---- log_softmax ---- */

/* Runs forward into a new result, and returns its numbers. */
static std::vector<float> forward(result *y, const value &x, size_t batch, size_t classes) {
  mptl_sink sink = sink_of(y, true);
  mptl_source source = x.source();
  CHECK(mptl_cuda_log_softmax_forward(&sink, &source, batch, classes, NULL) == 0,
        "forward is refused");
  return read_result(y);
}

static std::vector<float> backward(result *dx, const value &y, const value &dy, size_t batch,
                                   size_t classes) {
  mptl_sink sink = sink_of(dx, true);
  mptl_source sources[2] = {y.source(), dy.source()};
  CHECK(mptl_cuda_log_softmax_backward(&sink, &sources[0], &sources[1], batch, classes, NULL) == 0,
        "backward is refused");
  return read_result(dx);
}

/* Checks binary32, and a format with a mode and a start. */
static void softmax_forward(const value &x, size_t batch, size_t classes, const char *format,
                            int mode, size_t start) {
  size_t n = batch * classes;
  result exact = make_result(n, "fp32", MPTL_NEAREST_EVEN, false, 0),
         y = make_result(n, format, mode, false, start);
  std::vector<float> got = forward(&exact, x, batch, classes);
  for (size_t r = 0; r < n; r += classes) {
    long double top = -INFINITY, sum = 0;
    for (size_t i = r; i < r + classes; i++) top = fmaxl(top, (long double)x.x[i]);
    for (size_t i = r; i < r + classes; i++) sum += expl((long double)x.x[i] - top);
    for (size_t i = r; i < r + classes; i++)
      check_close("log_softmax", got[i], (long double)x.x[i] - top - logl(sum),
                  1e-12L + 0x1p-52L * fabsl(top), i, classes);
  }
  forward(&y, x, batch, classes);
  expect(&exact, got), expect(&y, got);
  check_result("log_softmax in binary32", &exact, true);
  check_result("log_softmax", &y, true);
}

static void softmax_backward(const value &y, const value &dy, size_t batch, size_t classes,
                             const char *format, int mode, bool accumulate, size_t start) {
  size_t n = batch * classes;
  result exact = make_result(n, "fp32", MPTL_NEAREST_EVEN, false, 0),
         dx = make_result(n, format, mode, accumulate, start);
  std::vector<float> got = backward(&exact, y, dy, batch, classes);
  for (size_t r = 0; r < n; r += classes) {
    long double sum = 0, size = 0;
    for (size_t i = r; i < r + classes; i++)
      sum += (long double)dy.x[i], size += fabsl((long double)dy.x[i]);
    for (size_t i = r; i < r + classes; i++)
      check_close("log_softmax's gradient", got[i],
                  (long double)dy.x[i] - expl((long double)y.x[i]) * sum, 1e-14L * size, i,
                  classes);
  }
  backward(&dx, y, dy, batch, classes);
  expect(&exact, got), expect(&dx, got);
  check_result("log_softmax's gradient in binary32", &exact, true);
  check_result("log_softmax's gradient", &dx, true);
}

/* ---- nll_loss ---- */

/* The place of the largest number, of equal numbers the first. A NaN counts as the largest only if
 * it is the first element. */
static size_t place_of_largest(const float *x, size_t classes) {
  float largest = x[0];
  if (x[0] != x[0]) return 0;
  for (size_t i = 0; i < classes; i++) largest = fmaxf(largest, x[i]);
  for (size_t i = 0;; i++)
    if (x[i] == largest) return i;
}

static void nll_forward(const value &x, const std::vector<int32_t> &labels, size_t classes,
                        size_t valid, const char *format, int mode, size_t start) {
  size_t batch = labels.size();
  result y = make_result(batch, format, mode, false, start);
  mptl_sink sink = sink_of(&y, true);
  mptl_source source = x.source();
  mptl_loss got = {77, 77, 77};
  mptl_targets targets = {labels.data(), NULL};
  mptl_loss_shape shape = {batch, classes, valid, true, 0};
  CHECK(mptl_cuda_loss_forward(MPTL_OP_NLL_LOSS, &sink, &source, &targets, &shape, &got, NULL) == 0,
        "forward is refused");
  std::vector<float> losses(batch);
  int32_t correct = 0, bad = -1;
  double sum = 0;
  for (size_t r = 0; r < valid; r++) {
    bool known = labels[r] >= 0 && (size_t)labels[r] < classes;
    losses[r] = known && !isnan(x.x[r * classes + (size_t)labels[r]])
                    ? -x.x[r * classes + (size_t)labels[r]]
                    : NAN;
    correct += known && place_of_largest(&x.x[r * classes], classes) == (size_t)labels[r];
    if (!known && bad < 0) bad = (int32_t)r;
  }
  std::vector<float> rounded = expect(&y, losses);
  for (size_t r = 0; r < valid; r++) sum += (double)stored_as(&y, rounded[r]);
  check_result("nll_loss", &y, true);
  CHECK(got.sum == sum || (got.sum != got.sum && sum != sum),
        "%zu of %zu losses: sum %a, expected %a", valid, batch, got.sum, sum);
  CHECK(got.correct == correct, "%zu samples of %zu classes: %d correct, expected %d", valid,
        classes, (int)got.correct, (int)correct);
  CHECK(got.bad_label == bad, "first bad label %d, expected %d", (int)got.bad_label, (int)bad);
}

static void nll_backward(const value &dy, const std::vector<int32_t> &labels, size_t classes,
                         const char *format, int mode, bool accumulate, size_t start) {
  size_t batch = labels.size();
  result dx = make_result(batch * classes, format, mode, accumulate, start);
  mptl_sink sink = sink_of(&dx, true);
  mptl_source source = dy.source(), nothing = {NULL, 0, NULL};
  mptl_targets targets = {labels.data(), NULL};
  mptl_loss_shape shape = {batch, classes, batch, true, 0};
  CHECK(mptl_cuda_loss_backward(MPTL_OP_NLL_LOSS, &sink, &nothing, &source, &targets, &shape,
                                NULL) == 0,
        "backward is refused");
  std::vector<float> want(batch * classes);
  for (size_t r = 0; r < batch; r++) want[r * classes + (size_t)labels[r]] = -dy.x[r];
  expect(&dx, want);
  check_result("nll_loss's gradient", &dx, true);
}

/* ---- Cases ---- */

/* Half of the labels are the class of the largest number, the others are random. */
static std::vector<int32_t> some_labels(const value &x, size_t batch, size_t classes) {
  std::vector<int32_t> labels(batch);
  for (size_t r = 0; r < batch; r++)
    labels[r] = (int32_t)(r % 2 ? place_of_largest(&x.x[r * classes], classes)
                                : random_bits(&state) % classes);
  return labels;
}

static void shapes(void) {
  size_t turn = 0;
  for (size_t classes : {1, 10, 33, 1000, 1500})
    for (size_t batch : {1, 7, 300}) {
      const char *in = formats[turn % 3], *out = formats[(turn + turn / 3) % 3];
      int mode = modes[turn % 2];
      size_t n = batch * classes, start = turn % 5;
      value x = random_value(n, in, start, 12), y = random_value(n, in, start, 5),
            dy = random_value(n, formats[(turn + 1) % 3], 0, 2),
            losses = random_value(batch, turn % 2 ? "fp32" : in, start, 3);
      softmax_forward(x, batch, classes, out, mode, start);
      softmax_backward(y, dy, batch, classes, out, mode, turn % 4 == 3, turn % 3);
      std::vector<int32_t> labels = some_labels(x, batch, classes);
      nll_forward(x, labels, classes, batch, out, mode, start);
      nll_forward(x, labels, classes, batch - batch / 3, out, mode, 0);
      nll_backward(losses, labels, classes, out, mode, turn % 4 == 1, start);
      turn++;
    }
}

/* Rows with numbers that are not finite or far from 0, and with ties, which matter for the largest
 * number. */
static void special(void) {
  for (const char *format : {"fp32", "FP(6,9,0)", "FP(4,3,4)", "fp8_e5m2"})
    for (size_t classes : {2, 11, 300, 1100}) {
      const size_t batch = 12;
      std::vector<float> x(batch * classes);
      for (float &v : x) v = (float)(random_bits(&state) % 3); /* ties */
      for (size_t r = 0; r < batch; r++) {
        float *row = &x[r * classes], *last = row + classes - 1;
        if (r == 0) row[0] = NAN;
        if (r == 1) *last = NAN;
        if (r == 2) row[classes / 2] = NAN, *last = 5;
        if (r == 3) *last = INFINITY;
        if (r == 4) row[classes / 2] = -INFINITY, *last = 2;
        if (r == 5)
          for (float *at = row; at <= last; at++) *at = -INFINITY;
        if (r == 6) row[0] = -0.0f, *last = 0;
        if (r == 7)
          for (float *at = row; at <= last; at++) *at = *at * 300 - 9000;
        if (r == 8)
          for (float *at = row; at <= last; at++) *at = -1;
        if (r == 9) row[0] = row[1] = NAN;
      }
      value v = value_of(x, format, 1);
      softmax_forward(v, batch, classes, formats[classes % 3], modes[classes % 2], 0);
      std::vector<int32_t> labels(batch);
      for (int which = 0; which < 4; which++) {
        for (size_t r = 0; r < batch; r++)
          labels[r] = (int32_t)(which == 0   ? place_of_largest(&v.x[r * classes], classes)
                                : which == 1 ? 0
                                : which == 2 ? classes - 1
                                             : classes / 2);
        nll_forward(v, labels, classes, batch, formats[classes % 3], modes[classes % 2], 0);
      }
    }
}

/* Losses whose sum depends on the order. */
static void sums(void) {
  std::vector<float> x(700);
  std::vector<int32_t> labels(x.size());
  for (float &v : x) v = ldexpf(random_float(&state, 1), (int)(random_bits(&state) % 90));
  nll_forward(value_of(x, "fp32", 0), labels, 1, x.size(), "fp32", MPTL_NEAREST_EVEN, 0);
}

/* Losses and gradients of an operator for labels, smoothed labels and values. All numbers are small
 * multiples of powers of two, so sums are exact in any order. */
static void exact_sums(mptl_op_id id, double (*term)(double x, double t, size_t n),
                       double (*gradient)(double x, double t, size_t n)) {
  for (size_t classes : {1, 16, 64, 2048})
    for (double smoothing : {0.0, 0.25, -1.0}) { /* -1: targets are values */
      const size_t batch = 9;
      std::vector<float> x(batch * classes), t(batch * classes), losses(batch),
          gradients(batch * classes), dy(batch, 0.5f);
      std::vector<int32_t> labels(batch);
      for (size_t r = 0; r < batch; r++) {
        double sum = -0.0;
        labels[r] = (int32_t)(random_bits(&state) % classes);
        for (size_t k = r * classes; k < (r + 1) * classes; k++) {
          x[k] = (float)(random_bits(&state) % 64) / 8 - 4;
          t[k] = (float)(random_bits(&state) % 8) / 8;
          if (smoothing >= 0)
            t[k] = (float)(smoothing / (double)classes +
                           (k % classes == (size_t)labels[r] ? 1 - smoothing : 0));
          sum += term(x[k], t[k], classes);
          gradients[k] = (float)(gradient(x[k], t[k], classes) * 0.5);
        }
        losses[r] = (float)sum;
      }
      value in = value_of(x, "fp32", 0), incoming = value_of(dy, "fp32", 0);
      result y = make_result(batch, "fp32", MPTL_NEAREST_EVEN, false, 0),
             dx = make_result(x.size(), "fp32", MPTL_NEAREST_EVEN, false, 0);
      mptl_sink y_sink = sink_of(&y, true), dx_sink = sink_of(&dx, true);
      mptl_source source = in.source(), dy_source = incoming.source();
      mptl_targets targets = {smoothing < 0 ? NULL : labels.data(),
                              smoothing < 0 ? t.data() : NULL};
      mptl_loss_shape shape = {batch, classes, batch, true, smoothing < 0 ? 0.5 : smoothing};
      mptl_loss got;
      CHECK(mptl_cuda_loss_forward(id, &y_sink, &source, &targets, &shape, &got, NULL) == 0,
            "forward is refused");
      CHECK(mptl_cuda_loss_backward(id, &dx_sink, &source, &dy_source, &targets, &shape, NULL) == 0,
            "backward is refused");
      expect(&y, losses), expect(&dx, gradients);
      check_result("a loss", &y, true);
      check_result("a loss's gradient", &dx, true);
    }
}

static void exact(void) {
  exact_sums(
      MPTL_OP_NLL_LOSS, [](double x, double t, size_t) { return t == 0 ? -0.0 : -t * x; },
      [](double, double t, size_t) { return t == 0 ? 0 : -t; });
  exact_sums(
      MPTL_OP_MSE_LOSS, [](double x, double t, size_t n) { return (x - t) * (x - t) / (double)n; },
      [](double x, double t, size_t n) { return 2 * (x - t) / (double)n; });
}

static void bad_labels(void) {
  const size_t batch = 300, classes = 10;
  value x = random_value(batch * classes, "FP(6,9,0)", 0, 3);
  std::vector<int32_t> labels = some_labels(x, batch, classes);
  labels[299] = 10;
  nll_forward(x, labels, classes, 299, "FP(4,3,4)", MPTL_NEAREST_EVEN, 0);
  for (const char *format : formats)
    nll_forward(x, labels, classes, 300, format, MPTL_STOCHASTIC, 0);
  labels[150] = -1, labels[151] = INT32_MAX, labels[7] = INT32_MIN;
  for (const char *format : formats)
    nll_forward(x, labels, classes, 300, format, MPTL_NEAREST_EVEN, 0);
  labels[0] = 11;
  nll_forward(x, labels, classes, 300, "fp32", MPTL_NEAREST_EVEN, 0);
  result sum = make_result(batch, "fp32", MPTL_NEAREST_EVEN, true, 0);
  mptl_sink sink = sink_of(&sum, true);
  mptl_source source = x.source();
  mptl_loss loss;
  mptl_targets targets = {labels.data(), NULL};
  mptl_loss_shape shape = {batch, classes, batch, true, 0};
  CHECK(
      mptl_cuda_loss_forward(MPTL_OP_NLL_LOSS, &sink, &source, &targets, &shape, &loss, NULL) != 0,
      "losses are not added to others");
}

int main(void) {
  in_both_orders([] {
    shapes();
    special();
    sums();
    exact();
    bad_labels();
  });
  return failures != 0;
}

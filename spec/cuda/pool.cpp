/* Averages and maxima, forward and backward, compared bit for bit with loops over windows: forward,
 * a window reads its elements; backward, it adds its gradient to them, one window after the other.
 * Many kinds of windows and formats. */
#include "operands.h"

static const char *const formats[] = {"FP(4,3,4)", "FP(6,9,0)", "fp32"};
static const int modes[] = {MPTL_NEAREST_EVEN, MPTL_STOCHASTIC};

static mptl_pool pool_of(size_t batch, size_t c, size_t ih, size_t iw, size_t kh, size_t kw,
                         size_t sh, size_t sw, size_t ph, size_t pw, bool without_padding) {
  return {batch,
          c,
          ih,
          iw,
          (ih + 2 * ph - kh) / sh + 1,
          (iw + 2 * pw - kw) / sw + 1,
          kh,
          kw,
          sh,
          sw,
          ph,
          pw,
          without_padding};
}

static size_t inputs(const mptl_pool &p) { return p.batch * p.ih * p.iw * p.c; }
static size_t outputs(const mptl_pool &p) { return p.batch * p.oh * p.ow * p.c; }

/* The elements of the input in the window of output element `at`, row by row. */
static std::vector<size_t> window(const mptl_pool &p, size_t at) {
  size_t c = at % p.c, ow = at / p.c % p.ow, oh = at / p.c / p.ow % p.oh,
         n = at / p.c / p.ow / p.oh;
  std::vector<size_t> elements;
  for (size_t i = 0; i < p.kh; i++)
    for (size_t j = 0; j < p.kw; j++) {
      long h = (long)(oh * p.sh + i) - (long)p.ph, w = (long)(ow * p.sw + j) - (long)p.pw;
      if (h < 0 || w < 0 || h >= (long)p.ih || w >= (long)p.iw) continue;
      elements.push_back(((n * p.ih + (size_t)h) * p.iw + (size_t)w) * p.c + c);
    }
  return elements;
}

/* One over the number of elements that are averaged. */
static float part_of_one(const mptl_pool &p, size_t inside) {
  return 1.0f / (float)(p.without_padding ? inside : p.kh * p.kw);
}

/* The element with the largest number, of equal numbers the first; if there are NaNs, the last
 * NaN. */
static size_t largest(const std::vector<float> &x, const std::vector<size_t> &elements) {
  float most = -INFINITY;
  size_t nan = SIZE_MAX;
  for (size_t e : elements) {
    if (x[e] != x[e]) nan = e;
    most = fmaxf(most, x[e]);
  }
  for (size_t e : elements)
    if (nan == SIZE_MAX && x[e] == most) return e;
  return nan;
}

static void averages(const mptl_pool &p, const value &x, const value &dy, result y, result dx) {
  mptl_sink y_sink = sink_of(&y, true), dx_sink = sink_of(&dx, true);
  mptl_source x_source = x.source(), dy_source = dy.source();
  CHECK(mptl_cuda_avgpool_forward(&y_sink, &x_source, &p, NULL) == 0, "forward is refused");
  CHECK(mptl_cuda_avgpool_backward(&dx_sink, &dy_source, &p, NULL) == 0, "backward is refused");
  std::vector<float> means(outputs(p)), gradients(inputs(p));
  for (size_t at = 0; at < means.size(); at++) {
    std::vector<size_t> elements = window(p, at);
    float factor = part_of_one(p, elements.size());
    for (size_t e : elements) means[at] += x.x[e], gradients[e] += dy.x[at] * factor;
    means[at] *= factor;
  }
  expect(&y, means), expect(&dx, gradients);
  check_result("avgpool", &y, true);
  check_result("avgpool's gradient", &dx, true);
}

static void maxima(const mptl_pool &p, const value &x, const value &dy, result y, result dx) {
  mptl_sink y_sink = sink_of(&y, true), dx_sink = sink_of(&dx, true);
  mptl_source x_source = x.source(), dy_source = dy.source();
  CHECK(mptl_cuda_maxpool_forward(&y_sink, &x_source, &p, NULL) == 0, "forward is refused");
  std::vector<uint64_t> scratch(mptl_cuda_maxpool_scratch(&p) / 8 + 2); /* whole vectors */
  void *places = (void *)(((uintptr_t)scratch.data() + 15) / 16 * 16);
  CHECK(mptl_cuda_maxpool_backward(&dx_sink, &x_source, &dy_source, &p, places, NULL) == 0,
        "backward is refused");
  std::vector<float> most(outputs(p)), gradients(inputs(p));
  for (size_t at = 0; at < most.size(); at++) {
    size_t e = largest(x.x, window(p, at));
    most[at] = x.x[e], gradients[e] += dy.x[at];
  }
  expect(&y, most), expect(&dx, gradients);
  check_result("maxpool", &y, true);
  check_result("maxpool's gradient", &dx, true);
}

static size_t turn;

/* Formats, modes, starts and accumulation change from call to call. Averages that are NaN are
 * stored in binary32: in other formats their sign would matter. */
static void both(const mptl_pool &p, const value &x, bool finite) {
  const char *out = formats[turn % 3], *of_averages = finite ? out : "fp32";
  int mode = modes[turn / 3 % 2];
  bool accumulate = turn % 4 == 3;
  size_t start = turn % 5;
  value dy = random_value(outputs(p), formats[(turn + turn / 3) % 3], turn % 2, 2);
  averages(p, x, dy, make_result(outputs(p), of_averages, mode, false, start),
           make_result(inputs(p), out, mode, accumulate, start));
  maxima(p, x, dy, make_result(outputs(p), out, mode, false, start),
         make_result(inputs(p), out, mode, accumulate, start));
  turn++;
}

/* Every kind of window. */
static void windows(size_t batch, size_t c) {
  for (const mptl_pool &p : {
           pool_of(batch, c, 6, 8, 2, 2, 2, 2, 0, 0, false), /* side by side */
           pool_of(batch, c, 7, 6, 3, 3, 2, 2, 1, 1, false), /* overlapping, padded */
           pool_of(batch, c, 5, 4, 3, 3, 1, 1, 1, 1, false), /* each element in up to nine */
           pool_of(batch, c, 5, 4, 3, 3, 1, 1, 1, 1, true),
           pool_of(batch, c, 8, 7, 3, 2, 2, 3, 1, 1, true), /* gaps between columns */
           pool_of(batch, c, 7, 9, 2, 1, 3, 4, 0, 0,
                   false), /* gaps, and elements behind the last window */
           pool_of(batch, c, 3, 3, 5, 4, 2, 1, 2, 2, true),  /* larger than the image */
           pool_of(batch, c, 4, 5, 3, 4, 1, 2, 0, 2, true),  /* padded in one direction */
           pool_of(batch, c, 3, 5, 3, 5, 1, 1, 0, 0, false), /* the image */
       })
    both(p, random_value(inputs(p), formats[turn % 3], turn % 3, 3), true);
}

/* A window with more places than a byte can hold. */
static void large_window(void) {
  mptl_pool p = pool_of(2, 12, 21, 20, 17, 18, 2, 1, 1, 0, false);
  for (int i = 0; i < 3; i++)
    both(p, random_value(inputs(p), formats[turn % 3], turn % 3, 3), true);
}

/* Many equal numbers, zeros of both signs, NaN and infinities. */
static void special(size_t c) {
  static const float numbers[] = {0, -0.0f, 1, 1, 2, -1, NAN, INFINITY, -INFINITY};
  for (size_t count : {2, 5, 6, 7, 9})
    for (const char *format : {"fp32", "fp8_e5m2"}) {
      mptl_pool p = pool_of(7, c, 6, 5, 3, 2, 2, 1, 1, 1, count % 2);
      std::vector<float> x(inputs(p));
      for (float &v : x) v = numbers[random_bits(&state) % count];
      both(p, value_of(x, format, 0), count < 7);
    }
  mptl_pool p = pool_of(2, c, 4, 4, 2, 2, 2, 2, 0, 0, false);
  both(p, value_of(std::vector<float>(inputs(p), -INFINITY), "fp32", 0), false);
  both(p, value_of(std::vector<float>(inputs(p), NAN), "fp32", 0), false);
}

static void nothing(void) {
  mptl_pool p = pool_of(0, 8, 4, 4, 2, 2, 2, 2, 0, 0, false);
  value none = random_value(0, "fp32", 0, 1);
  averages(p, none, none, make_result(0, "fp32", 0, false, 0), make_result(0, "fp32", 0, false, 0));
  maxima(p, none, none, make_result(0, "fp32", 0, false, 0), make_result(0, "fp32", 0, false, 0));
}

int main(void) {
  in_both_orders([] {
    for (size_t c : {1, 3, 8, 12, 20}) {
      windows(c == 3 ? 7 : 1, c);
      windows(2, c);
      special(c);
    }
    windows(60, 3); /* more positions than threads */
    large_window();
    nothing();
  });
  return failures != 0;
}

/* concat and slice compared, bit for bit, with copying channels one by one, in several formats.
 * Indices for random bits follow the layout. */
#include "operands.h"

static const char *const formats[] = {"FP(4,3,4)", "FP(6,9,0)", "fp32"};
static size_t turn; /* chooses formats, modes, starts and accumulation */

static int mode_of(size_t t) { return t % 2 ? MPTL_STOCHASTIC : MPTL_NEAREST_EVEN; }

/* ---- concat ---- */

/* The place in the output of a channel of the concatenated inputs: channel groups are rows of a
 * matrix, which is transposed. */
static size_t shuffled(size_t channel, size_t channels, size_t groups) {
  std::vector<size_t> order;
  for (size_t i = 0; i < channels / groups; i++)
    for (size_t g = 0; g < groups; g++) order.push_back(g * (channels / groups) + i);
  for (size_t at = 0;; at++)
    if (order[at] == channel) return at;
}

static void concat(const std::vector<size_t> &counts, size_t pixels, size_t shuffle) {
  mptl_cuda_concat shape = {pixels, (int)counts.size(), {}, shuffle};
  std::vector<value> x;
  std::vector<result> dx;
  std::vector<mptl_source> sources;
  std::vector<mptl_sink> sinks;
  size_t c = 0, unwanted = turn % 3 == 0 && counts.size() > 1 ? turn % counts.size() : SIZE_MAX;
  for (size_t k = 0; k < counts.size(); k++) {
    shape.counts[k] = counts[k], c += counts[k];
    x.push_back(random_value(pixels * counts[k], formats[(turn + k) % 3], (turn + k) % 4, 3));
    dx.push_back(make_result(pixels * counts[k], formats[(turn + 2 * k) % 3], mode_of(turn + k),
                             (turn + k) % 4 == 2, k % 3));
  }
  result y = make_result(pixels * c, formats[turn % 3], mode_of(turn / 3), false, turn % 5);
  value dy = random_value(pixels * c, formats[turn / 2 % 3], turn % 2, 2);
  for (size_t k = 0; k < counts.size(); k++) {
    sources.push_back(x[k].source()), sinks.push_back(sink_of(&dx[k], true));
    if (k == unwanted) sinks[k].wanted = false;
  }
  mptl_sink y_sink = sink_of(&y, true);
  mptl_source dy_source = dy.source();
  CHECK(mptl_cuda_concat_forward(&y_sink, sources.data(), &shape, NULL) == 0, "forward is refused");
  CHECK(mptl_cuda_concat_backward(sinks.data(), &dy_source, &shape, NULL) == 0,
        "backward is refused");
  std::vector<float> want(pixels * c);
  for (size_t k = 0, first = 0; k < counts.size(); first += counts[k++]) {
    std::vector<float> gradient(pixels * counts[k]);
    for (size_t j = 0; j < counts[k]; j++) {
      size_t there = shuffled(first + j, c, shuffle);
      for (size_t p = 0; p < pixels; p++) {
        want[p * c + there] = x[k].x[p * counts[k] + j];
        gradient[p * counts[k] + j] = dy.x[p * c + there];
      }
    }
    if (k == unwanted)
      dx[k].want =
          dx[k].accumulate ? std::vector<float>(gradient.size(), -0.0f) : read_result(&dx[k]);
    else
      expect(&dx[k], gradient);
    if (k == unwanted && !dx[k].accumulate)
      for (uint8_t byte : dx[k].bytes)
        CHECK(byte == 0x55, "a gradient that is not wanted is written");
    check_result("concat's gradient", &dx[k], true);
  }
  expect(&y, want);
  check_result("concat", &y, true);
  turn++;
}

static void concats(void) {
  for (size_t pixels : {1, 7, 300}) {
    concat({1}, pixels, 1);
    concat({3, 8}, pixels, 1);
    concat({8, 16, 8}, pixels, 1);
    concat({8, 12, 20}, pixels, 1);
    concat({1, 2, 3, 4}, pixels, 1);
    concat({12}, pixels, 3);
    concat({3, 3, 3}, pixels, 3);
    concat({8, 8}, pixels, 2);
    concat({12, 20}, pixels, 4);
    concat({20, 12}, pixels, 8);
    concat({1, 7}, pixels, 8);
  }
  concat({8, 1, 8, 1, 8, 1, 8, 1, 8, 1, 8, 1, 8, 1, 8, 1}, 5, 2); /* the most inputs */
  concat({8, 3}, 5000, 1);                                        /* more rows than threads */
  concat({8, 3}, 0, 1);
}

/* ---- slice ---- */

/* Expects elements at places; all others stay unchanged. Indices for random bits count the elements
 * from 0. */
static void expect_at(result *r, const std::vector<float> &unrounded,
                      const std::vector<size_t> &places) {
  std::vector<float> want =
      r->accumulate ? std::vector<float>(r->n, -0.0f) : read_result(r); /* before */
  std::vector<float> rounded = expect(r, unrounded);
  for (size_t i = 0; i < places.size(); i++) want[places[i]] = rounded[i];
  r->want = want;
}

/* Stores results of another format in binary32. */
static void emulate(result *r) {
  r->size = 4;
  r->bytes.assign((r->n + r->start + 8) * 4, 0x55);
}

static void slice_forward(size_t pixels, size_t c, size_t first, size_t count) {
  mptl_cuda_slice shape = {pixels, c, first, count, false};
  value x = random_value(pixels * c, formats[turn % 3], turn % 5, 3);
  result y =
      make_result(pixels * count, formats[(turn + turn / 3) % 3], mode_of(turn), false, turn % 3);
  mptl_sink sink = sink_of(&y, true);
  mptl_source source = x.source();
  CHECK(mptl_cuda_slice_forward(&sink, &source, &shape, NULL) == 0, "forward is refused");
  std::vector<float> want;
  for (size_t p = 0; p < pixels; p++)
    for (size_t j = first; j < first + count; j++) want.push_back(x.x[p * c + j]);
  expect(&y, want);
  check_result("slice", &y, true);
}

static void slice_backward(size_t pixels, size_t c, size_t first, size_t count, bool part,
                           bool accumulate) {
  mptl_cuda_slice shape = {pixels, c, first, count, part};
  value dy = random_value(pixels * count, formats[turn % 3], turn % 4, 3);
  result dx =
      make_result(pixels * c, formats[(turn + turn / 3) % 3], mode_of(turn), accumulate, turn % 3);
  if (turn % 5 == 0 && !accumulate) emulate(&dx);
  mptl_sink sink = sink_of(&dx, true);
  mptl_source source = dy.source();
  std::vector<float> whole(pixels * c);
  std::vector<size_t> places;
  for (size_t p = 0; p < pixels; p++)
    for (size_t j = 0; j < count; j++) {
      places.push_back(p * c + first + j);
      whole[places.back()] = dy.x[p * count + j];
    }
  if (part)
    expect_at(&dx, dy.x, places);
  else
    expect(&dx, whole);
  CHECK(mptl_cuda_slice_backward(&sink, &source, &shape, NULL) == 0, "backward is refused");
  check_result(part ? "part of a slice's gradient" : "slice's gradient", &dx, true);
}

static void slices(void) {
  static const size_t shapes[][3] = {{1, 0, 1},   {3, 1, 2},   {8, 0, 8},  {12, 3, 8},
                                     {20, 8, 12}, {20, 12, 8}, {24, 8, 8}, {33, 16, 16},
                                     {33, 1, 31}, {40, 7, 1}};
  for (size_t pixels : {0, 1, 7, 300})
    for (const auto &s : shapes) {
      slice_forward(pixels, s[0], s[1], s[2]);
      for (bool part : {false, true})
        for (bool accumulate : {false, true})
          slice_backward(pixels, s[0], s[1], s[2], part, accumulate), turn++;
    }
}

int main(void) {
  in_both_orders([] {
    concats();
    slices();
  });
  return failures != 0;
}

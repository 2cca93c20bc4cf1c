/* The kernels that check matrix products: operands in each type, sums of all passes against loops of their own, and what is planted. */
#include <string>

#include "operands.h"

extern "C" {
#include "kernels/whole.h"
}

/* n ic ih iw oc oh ow kh kw sh sw ph pw dh dw groups, as in spec/cuda/plans.c. */
static const int shapes[][16] = {
    {2, 4, 4, 4, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1}, {1, 6, 7, 5, 4, 4, 3, 3, 3, 2, 2, 1, 1, 1, 1, 2},
    {1, 3, 9, 4, 2, 5, 5, 3, 2, 2, 1, 2, 1, 2, 1, 1}, {1, 3, 4, 4, 3, 4, 4, 5, 5, 1, 1, 2, 2, 1, 1, 3},
    {1, 4, 6, 7, 8, 2, 2, 3, 3, 2, 3, 0, 1, 1, 2, 4}, {7, 11, 1, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1}, {2, 3, 5, 5, 4, 3, 3, 1, 1, 2, 2, 0, 0, 1, 1, 1}};

static mptl_cuda_sums sums_of(const int *n, int pass) {
  mptl_cuda_sums s;
  s.pass = pass;
  uint32_t *to[] = {&s.n,  &s.ic, &s.ih, &s.iw, &s.oc, &s.oh, &s.ow, &s.kh,
                    &s.kw, &s.sh, &s.sw, &s.ph, &s.pw, &s.dh, &s.dw, &s.groups};
  for (int i = 0; i < 16; i++) *to[i] = (uint32_t)n[i];
  return s;
}

static std::string name_of(const mptl_cuda_sums &s) {
  char text[160];
  snprintf(text, sizeof text, "pass %d of %ux%ux%ux%u -> %ux%ux%u, kernel %ux%u, stride %ux%u, groups %u", s.pass, s.n, s.ic,
           s.ih, s.iw, s.oc, s.oh, s.ow, s.kh, s.kw, s.sh, s.sw, s.groups);
  return text;
}

/* ---- By definition: products of two of x, weights and y added to the third ---- */

struct arrays {
  std::vector<double> of[3];
};
static const int firsts[] = {0, 2, 0}, seconds[] = {1, 1, 2}, results[] = {2, 0, 1};

static size_t size_of(const mptl_cuda_sums &s, int array) {
  return array == 0   ? (size_t)s.n * s.ih * s.iw * s.ic
         : array == 1 ? (size_t)s.oc * s.kh * s.kw * (s.ic / s.groups)
                      : (size_t)s.n * s.oh * s.ow * s.oc;
}

static void add_products(arrays *a, const mptl_cuda_sums &s) {
  int c = (int)(s.ic / s.groups), k = (int)(s.oc / s.groups), r = results[s.pass], f = firsts[s.pass], g = seconds[s.pass];
  for (int n = 0; n < (int)s.n; n++)
    for (int oh = 0; oh < (int)s.oh; oh++)
      for (int ow = 0; ow < (int)s.ow; ow++)
        for (int o = 0; o < (int)s.oc; o++)
          for (int kh = 0; kh < (int)s.kh; kh++)
            for (int kw = 0; kw < (int)s.kw; kw++) {
              int ih = oh * (int)s.sh - (int)s.ph + kh * (int)s.dh, iw = ow * (int)s.sw - (int)s.pw + kw * (int)s.dw;
              if (ih < 0 || ih >= (int)s.ih || iw < 0 || iw >= (int)s.iw) continue;
              for (int i = 0; i < c; i++) {
                size_t at[] = {(((size_t)n * s.ih + ih) * s.iw + iw) * s.ic + o / k * c + i,
                               (((size_t)o * s.kh + kh) * s.kw + kw) * c + i, (((size_t)n * s.oh + oh) * s.ow + ow) * s.oc + o};
                a->of[r][at[r]] += a->of[f][at[f]] * a->of[g][at[g]];
              }
            }
}

/* ---- Operands ---- */

struct operand {
  mptl_rounder rounder;
  size_t size;
  std::vector<uint8_t> bytes;
  const mptl_rounder *codes() const { return size < 4 ? &rounder : NULL; }
  mptl_source source() const { return {bytes.data(), size, codes()}; }
};

static operand filled(const char *format, const mptl_whole *numbers, size_t n) {
  operand o;
  o.rounder = make_rounder(format, MPTL_NEAREST_EVEN, MPTL_SATURATE);
  o.size = mptl_code_size(o.rounder.format);
  o.bytes.assign((n + 1) * o.size, 0x55);
  mptl_sink sink = {};
  sink.data = o.bytes.data(), sink.size = o.size, sink.rounder = o.codes();
  CHECK(mptl_cuda_fill_whole(&sink, numbers, n, NULL) == 0, "%s: filling is refused", format);
  for (size_t i = 0; i < o.size; i++) CHECK(o.bytes[n * o.size + i] == 0x55, "%s: wrote behind", format);
  return o;
}

static mptl_whole whole(uint32_t largest, uint32_t thinning, uint32_t stream) {
  return {largest, thinning, mptl_make_key(3, MPTL_STREAM_INIT, stream, 0)};
}

static void numbers(void) {
  static const struct {
    const char *format;
    uint32_t largest;
  } types[] = {{"fp32", 8191}, {"bf16", 255}, {"fp8_e4m3fn", 15}, {"fp8_e5m2", 7}};
  for (const auto &type : types)
    for (uint32_t thinning : {0u, 3u}) {
      const size_t n = 5001;
      mptl_whole w = whole(type.largest, thinning, 1);
      operand o = filled(type.format, &w, n);
      std::vector<float> x(n);
      if (o.size < 4)
        mptl_decode_f32(x.data(), o.bytes.data(), n, &o.rounder);
      else
        memcpy(x.data(), o.bytes.data(), n * 4);
      size_t zeros = 0, of_most_bits = 0;
      double sum = 0;
      for (size_t i = 0; i < n; i++) {
        CHECK(x[i] == (float)mptl_whole_number(&w, i), "%s: number %zu is %g", type.format, i, (double)x[i]);
        CHECK(fabsf(x[i]) <= (float)type.largest, "%s: number %zu is %g", type.format, i, (double)x[i]);
        zeros += x[i] == 0, of_most_bits += fabsf(x[i]) > (float)(type.largest / 2), sum += (double)x[i];
      }
      double kept = thinning == 0 ? 1 : 0.125;
      CHECK(fabs((double)of_most_bits / (double)n - kept / 2) < 0.06, "%s: %zu have all bits", type.format, of_most_bits);
      CHECK((double)zeros / (double)n > 1 - kept - 0.02, "%s, thinning %u: %zu zeros", type.format, thinning, zeros);
      CHECK(fabs(sum) < 5 * sqrt((double)n) * type.largest, "%s: the mean is %g", type.format, sum / (double)n);
    }
}

/* ---- Checks ---- */

static mptl_cuda_verdict check(const std::vector<float> &result, const operand &a, const operand &b, const mptl_cuda_sums &s,
                               size_t samples, int64_t most = INT64_MAX) {
  mptl_cuda_verdict v;
  memset(&v, 0, sizeof v);
  mptl_source first = a.source(), second = b.source();
  CHECK(mptl_cuda_check_sums(&v, result.data(), &first, &second, &s, samples, most, NULL) == 0, "%s: refused",
        name_of(s).c_str());
  return v;
}

static std::vector<float> definition(const mptl_cuda_sums &s, const mptl_whole &first, const mptl_whole &second) {
  arrays all;
  for (int i = 0; i < 3; i++) all.of[i].assign(size_of(s, i), 0.0);
  std::vector<double> &a = all.of[firsts[s.pass]], &b = all.of[seconds[s.pass]], &r = all.of[results[s.pass]];
  for (size_t i = 0; i < a.size(); i++) a[i] = mptl_whole_number(&first, i);
  for (size_t i = 0; i < b.size(); i++) b[i] = mptl_whole_number(&second, i);
  add_products(&all, s);
  return std::vector<float>(r.begin(), r.end());
}

/* Errors that are planted in a right result are found, and told. */
static void check_planted(const std::vector<float> &y, const operand &a, const operand &b, const mptl_cuda_sums &s) {
  const std::string name = name_of(s);
  const size_t n = y.size(), places[] = {0, n / 2, n - 1};
  for (int i = 0; i < 3; i++) {
    size_t at = places[i];
    const float wrong = i == 0 ? y[at] + 1 : i == 1 ? NAN : -y[at] - 3;
    std::vector<float> bad = y;
    bad[at] = wrong;
    mptl_cuda_verdict v = check(bad, a, b, s, i == 1 || n < 2 ? n : 2); /* the first and the last one are always samples */
    CHECK(v.wrong == 1 && v.at == at && same_value(v.got, wrong) && v.expected == y[at], "%s: %g at %zu is not found",
          name.c_str(), (double)wrong, at);
  }
  std::vector<float> bad = y;
  bad[n / 2] += 1, bad[n - 1] += 1;
  mptl_cuda_verdict v = check(bad, a, b, s, n);
  CHECK(v.wrong == (n > 1 ? 2 : 1) && v.at == n / 2, "%s: of two wrong ones, the first is not told", name.c_str());
}

static void check_pass(const mptl_cuda_sums &s, const char *format, const char *second_format, uint32_t largest, bool planted) {
  const std::string name = name_of(s) + ", " + format;
  const mptl_whole first = whole(largest, 0, 1), second = whole(7, 0, 2);
  operand a = filled(format, &first, size_of(s, firsts[s.pass])), b = filled(second_format, &second, size_of(s, seconds[s.pass]));
  std::vector<float> y = definition(s, first, second);
  double most = 0;
  for (float x : y) most = fmax(most, fabs((double)x));
  mptl_cuda_verdict v = check(y, a, b, s, y.size());
  CHECK(v.wrong == 0 && (double)v.largest == most, "%s: %llu wrong, at %llu: %g, expected %g; the largest is %llu, not %g",
        name.c_str(), (unsigned long long)v.wrong, (unsigned long long)v.at, (double)v.got, (double)v.expected,
        (unsigned long long)v.largest, most);
  if (planted) check_planted(y, a, b, s);
  if (!planted || most < 100) return;
  std::vector<float> bad(y.size(), -1e9f); /* those that have more than half of the largest are not looked at, nor more */
  v = check(bad, a, b, s, y.size(), (int64_t)most / 2);
  CHECK(v.wrong < y.size() && v.largest < (uint64_t)most / 2, "%s: %llu of %zu compared", name.c_str(),
        (unsigned long long)v.wrong, y.size());
}

static void sums(void) {
  for (const int *shape : shapes)
    for (int pass = 0; pass < 3; pass++) {
      mptl_cuda_sums s = sums_of(shape, pass);
      check_pass(s, "fp32", "fp32", 4095, true);
      if (mptl_shim_order == MPTL_SHIM_REVERSE) continue; /* blocks of 256 fibers take their time */
      check_pass(s, "bf16", "bf16", 255, false);
      check_pass(s, "fp8_e4m3fn", "fp8_e5m2", 15, false);
      check_pass(s, "fp8_e5m2", "fp8_e4m3fn", 7, false);
    }
  mptl_cuda_sums s = sums_of(shapes[0], 3);
  mptl_cuda_verdict v = {};
  mptl_source none = {NULL, 4, NULL};
  CHECK(mptl_cuda_check_sums(&v, NULL, &none, &none, &s, 1, 1, NULL) != 0, "there is no fourth pass");
}

/* Samples of a large result: how many, and that an image's corners are among them more often than by their number. */
static void samples(void) {
  static const int large[16] = {8, 2, 40, 40, 16, 40, 40, 1, 1, 1, 1, 0, 0, 1, 1, 1};
  mptl_cuda_sums s = sums_of(large, 0);
  const size_t n = size_of(s, 2);
  CHECK(mptl_cuda_check_samples(&s) == 1 << 16, "%zu samples", mptl_cuda_check_samples(&s));
  s.n = 1;
  CHECK(mptl_cuda_check_samples(&s) == n / 8, "all are samples: %zu", mptl_cuda_check_samples(&s));
  s.pass = 2, s.n = 1 << 12, s.oc = 1 << 12; /* of weights: 2^13, sums of 6.5 million products */
  CHECK(mptl_cuda_check_samples(&s) == 1024, "%zu samples", mptl_cuda_check_samples(&s));
  s = sums_of(large, 0);
  mptl_whole w = whole(3, 0, 1);
  operand a = filled("fp32", &w, size_of(s, 0)), b = filled("fp32", &w, size_of(s, 1));
  const std::vector<float> y = definition(s, w, w);
  for (int corner = 1; corner < 3; corner++) { /* wrong in all images and channels of one pixel: 128 of 204800 */
    std::vector<float> bad = y;
    size_t h = corner & 1 ? 39 : 0, x = corner & 2 ? 39 : 0;
    for (size_t image = 0; image < 8; image++)
      for (size_t c = 0; c < 16; c++) bad[((image * 40 + h) * 40 + x) * 16 + c] += 1;
    CHECK(check(bad, a, b, s, 1024).wrong > 4, "corner %d is hardly looked at", corner);
  }
  std::vector<float> bad = y;
  for (size_t i = 0; i < n; i += 50) bad[i] += 1;
  uint64_t wrong = check(bad, a, b, s, 1024).wrong;
  CHECK(wrong > 4 && wrong < 100, "of elements of which 2 %% are wrong, %llu of 1024 are", (unsigned long long)wrong);
}

static void same(void) {
  const size_t n = 3001;
  std::vector<float> a(n, 2.0f), b = a;
  mptl_cuda_verdict v = {};
  CHECK(mptl_cuda_check_same(&v, a.data(), b.data(), n, NULL) == 0 && v.others == 0 && v.left == 0, "the same");
  b[n - 1] = 3, b[0] = -2, a[7] = b[7] = NAN, a[9] = 0.0f, b[9] = -0.0f;
  CHECK(mptl_cuda_check_same(&v, a.data(), b.data(), n, NULL) == 0 && v.others == 3 && v.left == 1, "%llu others, %llu left",
        (unsigned long long)v.others, (unsigned long long)v.left);
}

int main(void) {
  numbers();
  in_both_orders(sums);
  samples();
  in_both_orders(same);
  return failures > 0;
}

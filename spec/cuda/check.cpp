/* The kernels that check matrix products: operands in each type, sums of all passes compared with
 * loops, and planted errors. */
#include <string>

#include "operands.h"

extern "C" {
#include "kernels/whole.h"
#include "sums.h"
}

static const mptl_conv_shape shapes[] = {{2, 4, 4, 4, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, false},
                                         {1, 6, 7, 5, 4, 4, 3, 3, 3, 2, 2, 1, 1, 1, 1, 2, false},
                                         {1, 3, 9, 4, 2, 5, 5, 3, 2, 2, 1, 2, 1, 2, 1, 1, false},
                                         {1, 3, 4, 4, 3, 4, 4, 5, 5, 1, 1, 2, 2, 1, 1, 3, false},
                                         {1, 4, 6, 7, 8, 2, 2, 3, 3, 2, 3, 0, 1, 1, 2, 4, false},
                                         {7, 11, 1, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, false},
                                         {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, false},
                                         {2, 3, 5, 5, 4, 3, 3, 1, 1, 2, 2, 0, 0, 1, 1, 1, false}};

/* One pass of a convolution. */
struct product {
  mptl_conv_shape shape;
  int pass;
  mptl_pass_arrays arrays() const { return mptl_arrays_of((mptl_pass)pass); }
  size_t size(int array) const { return mptl_conv_sizes_of(&shape).n[array]; }
  std::string name() const {
    return std::string(mptl_conv_name(&shape).text) + ", " + mptl_pass_name((mptl_pass)pass);
  }
  mptl_cuda_sums sums() const {
    const mptl_conv_shape &s = shape;
    return {pass,           (uint32_t)s.n,     (uint32_t)s.ic, (uint32_t)s.ih, (uint32_t)s.iw,
            (uint32_t)s.oc, (uint32_t)s.oh,    (uint32_t)s.ow, (uint32_t)s.kh, (uint32_t)s.kw,
            (uint32_t)s.sh, (uint32_t)s.sw,    (uint32_t)s.ph, (uint32_t)s.pw, (uint32_t)s.dh,
            (uint32_t)s.dw, (uint32_t)s.groups};
  }
};

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
  for (size_t i = 0; i < o.size; i++)
    CHECK(o.bytes[n * o.size + i] == 0x55, "%s: wrote behind", format);
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
        CHECK(x[i] == (float)mptl_whole_number(&w, i), "%s: number %zu is %g", type.format, i,
              (double)x[i]);
        CHECK(fabsf(x[i]) <= (float)type.largest, "%s: number %zu is %g", type.format, i,
              (double)x[i]);
        zeros += x[i] == 0, of_most_bits += fabsf(x[i]) > (float)(type.largest / 2),
            sum += (double)x[i];
      }
      double kept = thinning == 0 ? 1 : 0.125;
      CHECK(fabs((double)of_most_bits / (double)n - kept / 2) < 0.06, "%s: %zu have all bits",
            type.format, of_most_bits);
      CHECK((double)zeros / (double)n > 1 - kept - 0.02, "%s, thinning %u: %zu zeros", type.format,
            thinning, zeros);
      CHECK(fabs(sum) < 5 * sqrt((double)n) * type.largest, "%s: the mean is %g", type.format,
            sum / (double)n);
    }
}

/* ---- Checks ---- */

static mptl_cuda_verdict check(const std::vector<float> &result, const operand &a, const operand &b,
                               const product &p, size_t samples, int64_t most = INT64_MAX) {
  mptl_cuda_verdict v;
  memset(&v, 0, sizeof v);
  mptl_source first = a.source(), second = b.source();
  mptl_cuda_sums sums = p.sums();
  CHECK(mptl_cuda_check_sums(&v, result.data(), &first, &second, &sums, samples, most, NULL) == 0,
        "%s: refused", p.name().c_str());
  return v;
}

static std::vector<float> definition(const product &p, const mptl_whole &first,
                                     const mptl_whole &second) {
  std::vector<double> all[MPTL_PRODUCT_ARRAYS];
  for (int i = 0; i < MPTL_PRODUCT_ARRAYS; i++) all[i].assign(p.size(i), 0.0);
  std::vector<double> &a = all[p.arrays().first], &b = all[p.arrays().second],
                      &result = all[p.arrays().result];
  for (size_t i = 0; i < a.size(); i++) a[i] = mptl_whole_number(&first, i);
  for (size_t i = 0; i < b.size(); i++) b[i] = mptl_whole_number(&second, i);
  double *const arrays[] = {all[MPTL_X].data(), all[MPTL_W].data(), all[MPTL_Y].data()};
  conv_reference(&p.shape, (mptl_pass)p.pass, arrays);
  return std::vector<float>(result.begin(), result.end());
}

/* Errors planted in a right result are found and described. */
static void check_planted(const std::vector<float> &y, const operand &a, const operand &b,
                          const product &p) {
  const std::string name = p.name();
  const size_t n = y.size(), places[] = {0, n / 2, n - 1};
  for (int i = 0; i < 3; i++) {
    size_t at = places[i];
    const float wrong = i == 0 ? y[at] + 1 : i == 1 ? NAN : -y[at] - 3;
    std::vector<float> bad = y;
    bad[at] = wrong;
    /* The first and the last element are always samples. */
    mptl_cuda_verdict v = check(bad, a, b, p, i == 1 || n < 2 ? n : 2);
    CHECK(v.wrong == 1 && v.at == at && same_value(v.got, wrong) && v.expected == y[at],
          "%s: %g at %zu is not found", name.c_str(), (double)wrong, at);
  }
  std::vector<float> bad = y;
  bad[n / 2] += 1, bad[n - 1] += 1;
  mptl_cuda_verdict v = check(bad, a, b, p, n);
  CHECK(v.wrong == (n > 1 ? 2 : 1) && v.at == n / 2,
        "%s: of two wrong ones, the first is not described", name.c_str());
}

static void check_pass(const product &p, const char *format, const char *second_format,
                       uint32_t largest, bool planted) {
  const std::string name = p.name() + ", " + format;
  const mptl_whole first = whole(largest, 0, 1), second = whole(7, 0, 2);
  operand a = filled(format, &first, p.size(p.arrays().first)),
          b = filled(second_format, &second, p.size(p.arrays().second));
  std::vector<float> y = definition(p, first, second);
  double most = 0;
  for (float x : y) most = fmax(most, fabs((double)x));
  mptl_cuda_verdict v = check(y, a, b, p, y.size());
  CHECK(v.wrong == 0 && (double)v.largest == most,
        "%s: %llu wrong, at %llu: %g, expected %g; the largest is %llu, not %g", name.c_str(),
        (unsigned long long)v.wrong, (unsigned long long)v.at, (double)v.got, (double)v.expected,
        (unsigned long long)v.largest, most);
  if (planted) check_planted(y, a, b, p);
  if (!planted || most < 100) return;
  /* Wrong sums are skipped if they are half the largest or more. */
  std::vector<float> bad(y.size(), -1e9f);
  v = check(bad, a, b, p, y.size(), (int64_t)most / 2);
  CHECK(v.wrong < y.size() && v.largest < (uint64_t)most / 2, "%s: %llu of %zu compared",
        name.c_str(), (unsigned long long)v.wrong, y.size());
}

static void sums(void) {
  for (const mptl_conv_shape &shape : shapes)
    for (int pass = 0; pass < MPTL_PASSES; pass++) {
      product p = {shape, pass};
      check_pass(p, "fp32", "fp32", 4095, true);
      if (mptl_shim_order == MPTL_SHIM_REVERSE) continue; /* blocks of 256 fibers are slow */
      check_pass(p, "bf16", "bf16", 255, false);
      check_pass(p, "fp8_e4m3fn", "fp8_e5m2", 15, false);
      check_pass(p, "fp8_e5m2", "fp8_e4m3fn", 7, false);
    }
  mptl_cuda_sums s = product{shapes[0], MPTL_PASSES}.sums();
  mptl_cuda_verdict v = {};
  mptl_source none = {NULL, 4, NULL};
  CHECK(mptl_cuda_check_sums(&v, NULL, &none, &none, &s, 1, 1, NULL) != 0,
        "there is no fourth pass");
}

static size_t samples_of(const product &p) {
  mptl_cuda_sums s = p.sums();
  return mptl_cuda_check_samples(&s);
}

/* Samples of a large result: their number, and that corners of images are sampled more often than
 * other pixels. */
static void samples(void) {
  const product large = {{8, 2, 40, 40, 16, 40, 40, 1, 1, 1, 1, 0, 0, 1, 1, 1, false},
                         MPTL_FORWARD};
  const size_t n = large.size(MPTL_Y);
  product p = large;
  CHECK(samples_of(p) == 1 << 16, "%zu samples", samples_of(p));
  p.shape.n = 1;
  CHECK(samples_of(p) == n / 8, "all are samples: %zu", samples_of(p));
  p.pass = MPTL_BACKWARD_WEIGHTS, p.shape.n = 1 << 12,
  p.shape.oc = 1 << 12; /* 2^13 sums of 6.5 million products */
  CHECK(samples_of(p) == 1024, "%zu samples", samples_of(p));
  mptl_whole w = whole(3, 0, 1);
  operand a = filled("fp32", &w, large.size(MPTL_X)), b = filled("fp32", &w, large.size(MPTL_W));
  const std::vector<float> y = definition(large, w, w);
  /* Wrong in all images and channels of one pixel: 128 of 204800. */
  for (int corner = 1; corner < 3; corner++) {
    std::vector<float> bad = y;
    size_t h = corner & 1 ? 39 : 0, x = corner & 2 ? 39 : 0;
    for (size_t image = 0; image < 8; image++)
      for (size_t c = 0; c < 16; c++) bad[((image * 40 + h) * 40 + x) * 16 + c] += 1;
    CHECK(check(bad, a, b, large, 1024).wrong > 4, "corner %d is hardly looked at", corner);
  }
  std::vector<float> bad = y;
  for (size_t i = 0; i < n; i += 50) bad[i] += 1;
  uint64_t wrong = check(bad, a, b, large, 1024).wrong;
  CHECK(wrong > 4 && wrong < 100, "of elements of which 2 %% are wrong, %llu of 1024 are",
        (unsigned long long)wrong);
}

static void same(void) {
  const size_t n = 3001;
  std::vector<float> a(n, 2.0f), b = a;
  mptl_cuda_verdict v = {};
  CHECK(mptl_cuda_check_same(&v, a.data(), b.data(), n, NULL) == 0 && v.others == 0 && v.left == 0,
        "the same");
  b[n - 1] = 3, b[0] = -2, a[7] = b[7] = NAN, a[9] = 0.0f, b[9] = -0.0f;
  CHECK(mptl_cuda_check_same(&v, a.data(), b.data(), n, NULL) == 0 && v.others == 3 && v.left == 1,
        "%llu others, %llu left", (unsigned long long)v.others, (unsigned long long)v.left);
}

int main(void) {
  numbers();
  in_both_orders(sums);
  samples();
  in_both_orders(same);
  return failures > 0;
}

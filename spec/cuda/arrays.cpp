/* Rounding, encoding, decoding and the other array kernels, compared with the scalar definition of
 * kernels/round.h: numbers, codes and statistics, bit for bit. Inputs are the values of all codes,
 * the midpoints between them, the neighbours of both, special values and random bit patterns. */
#include "support.h"

static const char *const formats[] = {
    "FP(4,3,4)",    "FP(5,2,0)",   "FP(6,9,0)", "fp8_e4m3fn",   "fp8_e5m2",   "fp16",
    "bf16",         "tf32",        "fp32",      "FP(8,7,4)",    "FP(8,7,-4)", "FP(3,0,1)",
    "FP(1,0,-127)", "FP(7,23,62)", "FP(2,1,0)", "FP(5,10,115)", "FP(8,0,0)",  "FP(6,9,-100)"};

/* Values of codes (all codes, or some of many), midpoints and neighbours, with both signs. */
static std::vector<float> telling_inputs(const mptl_rounder *r, uint64_t *state) {
  std::vector<float> x;
  uint32_t codes = r->max_code + 1, stride = codes > 4096 ? codes / 1500 : 1;
  for (uint32_t code = 0; code < codes; code += stride) {
    double low = (double)mptl_bits_f32(mptl_decode_code(code, r)),
           high = (double)mptl_bits_f32(mptl_decode_code(code + 1, r));
    if (code == r->max_code) high = low * 2;
    float middle = (float)((low + high) / 2);
    for (float at : {(float)low, middle}) {
      uint32_t bits = mptl_f32_bits(at);
      for (uint32_t near : {bits - 1, bits, bits + 1, bits | MPTL_F32_SIGN,
                            (bits - 1) | MPTL_F32_SIGN, (bits + 1) | MPTL_F32_SIGN})
        x.push_back(mptl_bits_f32(near));
    }
  }
  for (uint32_t bits : {0u, 1u, 2u, 0x007fffffu, 0x00800000u, 0x7f7fffffu, 0x7f800000u, 0x7f800001u,
                        0x7fc00000u, 0x7fffffffu})
    for (uint32_t sign : {0u, MPTL_F32_SIGN}) x.push_back(mptl_bits_f32(bits | sign));
  for (int i = 0; i < 5000; i++) x.push_back(mptl_bits_f32((uint32_t)random_bits(state)));
  return x;
}

static uint32_t code_at(const void *codes, size_t size, size_t i) {
  return size == 1   ? ((const uint8_t *)codes)[i]
         : size == 2 ? ((const uint16_t *)codes)[i]
                     : ((const uint32_t *)codes)[i];
}

/* Checks round, encode and decode on x from element `first` on. index: of that element, for random
 * bits. */
static void check_array(const char *name, const std::vector<float> &x, size_t first,
                        const mptl_rounder *r, uint64_t index) {
  size_t n = x.size() - first, size = mptl_code_size(r->format);
  mptl_key key = mptl_make_key(20230717, MPTL_STREAM_ROUND, 5, 7);
  std::vector<float> rounded(n), decoded(n);
  std::vector<uint8_t> codes(n * size);
  mptl_round_stats got = {}, encoded = {}, want = {};
  mptl_cuda_round(rounded.data(), x.data() + first, n, r, key, index, &got, NULL);
  mptl_cuda_encode(codes.data(), x.data() + first, n, r, key, index, &encoded, NULL);
  mptl_cuda_decode(decoded.data(), codes.data(), n, r, NULL);
  for (size_t i = 0; i < n; i++) {
    uint32_t u = mptl_f32_bits(x[first + i]), event,
             y = mptl_round_bits(u, r, key, index + i, &event);
    mptl_count(&want, u, event);
    uint32_t code = mptl_encode_bits(y, r), back = mptl_decode_code(code, r);
    CHECK(mptl_f32_bits(rounded[i]) == y, "%s mode %d: %08X gives %08X, expected %08X", name,
          r->mode, u, mptl_f32_bits(rounded[i]), y);
    CHECK(code_at(codes.data(), size, i) == code, "%s mode %d: %08X has code %X, expected %X", name,
          r->mode, u, code_at(codes.data(), size, i), code);
    CHECK(mptl_f32_bits(decoded[i]) == back, "%s: code %X is %08X, expected %08X", name, code,
          mptl_f32_bits(decoded[i]), back);
  }
  check_stats(name, &got, &want);
  check_stats(name, &encoded, &want);
}

static void rounding(void) {
  uint64_t state = 1;
  for (const char *name : formats)
    for (int mode = 0; mode <= MPTL_STOCHASTIC; mode++)
      for (mptl_overflow overflow : {MPTL_SATURATE, MPTL_INF}) {
        mptl_rounder r = make_rounder(name, (mptl_rounding_mode)mode, overflow);
        std::vector<float> x = telling_inputs(&r, &state);
        x.resize(x.size() / 8 *
                 8); /* for the plain kernels; from element 1 on the array is not plain */
        check_array(name, x, 0, &r, 64);
        check_array(name, std::vector<float>(x.begin(), x.begin() + (long)(x.size() / 256 * 256)),
                    0, &r, 64); /* by write_apart */
        check_array(name, x, overflow == MPTL_INF ? 1 : 0, &r,
                    overflow == MPTL_INF ? 1000003 : (uint64_t)3 << 32);
      }
}

/* Decodes all codes, also codes that rounding never gives. */
static void decoding(void) {
  for (const char *name : formats) {
    mptl_rounder r = make_rounder(name, MPTL_NEAREST_EVEN, MPTL_SATURATE);
    size_t size = mptl_code_size(r.format), n = size == 1 ? 256 : 65536;
    std::vector<uint8_t> codes(n * size);
    std::vector<float> x(n);
    uint64_t state = 3;
    for (size_t i = 0; i < n; i++) {
      if (size == 1) codes[i] = (uint8_t)i;
      if (size == 2) ((uint16_t *)codes.data())[i] = (uint16_t)i;
      if (size == 4) ((uint32_t *)codes.data())[i] = (uint32_t)random_bits(&state);
    }
    mptl_cuda_decode(x.data(), codes.data(), n, &r, NULL);
    for (size_t i = 0; i < n; i++) {
      uint32_t code = code_at(codes.data(), size, i), want = mptl_decode_code(code, &r);
      CHECK(mptl_f32_bits(x[i]) == want, "%s: code %X is %08X, expected %08X", name, code,
            mptl_f32_bits(x[i]), want);
    }
  }
}

/* Various lengths and starts: nothing outside the elements is written. */
static void lengths(void) {
  uint64_t state = 9;
  mptl_rounder r = make_rounder("FP(4,3,4)", MPTL_STOCHASTIC, MPTL_INF);
  mptl_key key = mptl_make_key(5, MPTL_STREAM_ROUND, 1, 2);
  for (size_t n :
       {0, 1, 2, 7, 8, 9, 13, 15, 16, 17, 31, 63, 64, 65, 127, 255, 257, 2047, 2053, 8191, 40009})
    for (size_t start : {0, 1, 2, 3, 4, 8}) {
      std::vector<float> x(start + n + 16);
      for (float &v : x) v = random_float(&state, 40);
      std::vector<float> rounded(start + n + 16, 77);
      std::vector<uint8_t> codes(start + n + 16, 77);
      std::vector<float> decoded(start + n + 16, 77);
      mptl_round_stats got = {}, want = {};
      uint64_t index = start % 2 ? 64 * start : 17 * start;
      mptl_cuda_round(rounded.data() + start, x.data() + start, n, &r, key, index, NULL, NULL);
      mptl_cuda_encode(codes.data() + start, x.data() + start, n, &r, key, index, &got, NULL);
      mptl_cuda_decode(decoded.data() + start, codes.data() + start, n, &r, NULL);
      for (size_t i = 0; i < n; i++) {
        uint32_t u = mptl_f32_bits(x[start + i]), event,
                 y = mptl_round_bits(u, &r, key, index + i, &event);
        mptl_count(&want, u, event);
        CHECK(mptl_f32_bits(rounded[start + i]) == y, "%zu elements from %zu: element %zu", n,
              start, i);
        CHECK(codes[start + i] == mptl_encode_bits(y, &r), "%zu elements from %zu: code %zu", n,
              start, i);
        CHECK(decoded[start + i] == mptl_bits_f32(mptl_decode_code(codes[start + i], &r)),
              "decoded %zu", i);
      }
      check_stats("lengths", &got, &want);
      for (size_t i = 0; i < 16; i++) {
        size_t at = i < start ? i : start + n + i - start;
        if (i < start || at < x.size())
          CHECK(rounded[at] == 77 && codes[at] == 77 && decoded[at] == 77,
                "%zu elements from %zu: wrote element %zu", n, start, at);
      }
    }
}

/* Results that are added to the old contents, in lengths for each of the kernels. */
static void accumulation(void) {
  uint64_t state = 6;
  for (const char *name : {"FP(5,2,0)", "FP(6,9,0)", "fp32"})
    for (size_t n : {7, 1000, 1024, 9 * 2048}) {
      mptl_rounder r = make_rounder(name, MPTL_NEAREST_EVEN, MPTL_INF);
      std::vector<float> x(n), sum(n), before;
      for (float &v : x) v = random_float(&state, 1e3f);
      for (float &v : sum) v = random_float(&state, 10);
      x[5] = INFINITY, before = sum;
      mptl_round_stats got = {};
      mptl_sink s = {};
      s.data = sum.data(), s.size = 4, s.rounder = &r, s.accumulate = true, s.stats = &got;
      CHECK(mptl_cuda_write_rows(&s, x.data(), 1, n, NULL, n, NULL) == 0, "write is refused");
      for (size_t i = 0; i < n; i++) {
        uint32_t event;
        float y =
            r.is_identity
                ? x[i]
                : mptl_bits_f32(mptl_round_bits(mptl_f32_bits(x[i]), &r, mptl_key{}, i, &event));
        CHECK(same_value(sum[i], before[i] + y), "%s: element %zu of %zu is %a, expected %a", name,
              i, n, (double)sum[i], (double)(before[i] + y));
      }
      CHECK(got.elements == n && got.inf_in == !r.is_identity, "%s: %zu elements", name, n);
    }
}

/* Sinks: bias, accumulation, exponents. Results that stay binary32 are neither rounded nor counted
 * as events. */
static void sinks(void) {
  uint64_t state = 4;
  const size_t n = 3 * 1001, c = 7;
  std::vector<float> x(n), bias(c), sum(n), before(n);
  for (float &v : x) v = random_float(&state, 1e3f);
  for (float &v : bias) v = random_float(&state, 10);
  for (float &v : sum) v = random_float(&state, 10);
  x[5] = INFINITY, x[77] = NAN, x[100] = 0, x[101] = 0x1p-140f;
  before = sum;
  for (const char *name : {"FP(5,2,0)", "FP(6,9,0)", "fp32"})
    for (int mode : {MPTL_NEAREST_EVEN, MPTL_STOCHASTIC}) {
      mptl_rounder r = make_rounder(name, (mptl_rounding_mode)mode, MPTL_INF);
      mptl_round_stats got = {}, want = {};
      std::vector<mptl_exponents> exponents(2);
      mptl_sink s = {};
      s.data = sum.data(), s.size = 4, s.rounder = &r, s.accumulate = true, s.stats = &got,
      s.exponents = &exponents[0];
      s.key = mptl_make_key(8, MPTL_STREAM_ROUND, 3, 4), s.index0 = 128;
      sum = before;
      mptl_cuda_write_rows(&s, x.data(), n / c, c, bias.data(), c, NULL);
      for (size_t i = 0; i < n; i++) {
        float value = x[i] + bias[i % c];
        uint32_t event = 0, u = mptl_f32_bits(value),
                 y = r.is_identity ? u : mptl_round_bits(u, &r, s.key, s.index0 + i, &event);
        mptl_count_exponent(&exponents[1], u);
        if (r.is_identity)
          want.elements++;
        else
          mptl_count(&want, u, event);
        CHECK(same_value(sum[i], before[i] + mptl_bits_f32(y)), "%s: sum %zu is %a", name, i,
              (double)sum[i]);
      }
      check_stats(name, &got, &want);
      CHECK(memcmp(&exponents[0], &exponents[1], sizeof exponents[0]) == 0, "%s: exponents differ",
            name);
    }
}

/* Rows of c elements that are filled up with zeros, in all types, from all storage; and rows that
 * are cut off before a sink. */
static void rows(void) {
  static const struct {
    size_t c, wide;
  } sizes[] = {{3, 4}, {3, 6}, {3, 8}, {1, 2}, {5, 6}, {9, 9}, {7, 16}, {33, 36}};
  uint64_t state = 21;
  for (const auto &size : sizes)
    for (size_t count : {0, 1, 7, 1013})
      for (const char *name : {"FP(4,3,4)", "fp8_e4m3fn", "bf16", "fp32"}) {
        mptl_rounder r = make_rounder(name, MPTL_NEAREST_EVEN, MPTL_SATURATE);
        const size_t c = size.c, wide = size.wide, n = count * c, start = count % 3,
                     bytes = mptl_code_size(r.format);
        std::vector<float> x(n + 1);
        for (float &v : x) v = random_float(&state, 3);
        mptl_cuda_round(x.data(), x.data(), n, &r, mptl_key{}, 0, NULL, NULL);
        std::vector<uint8_t> codes((start + n) * bytes + 1);
        mptl_cuda_encode(codes.data() + start * bytes, x.data(), n, &r, mptl_key{}, 0, NULL, NULL);
        mptl_source source = {codes.data() + start * bytes, bytes, &r};
        std::vector<float> floats(count * wide + 1, 7.0f);
        std::vector<uint16_t> bf16(count * wide + 1, 7);
        std::vector<uint8_t> again(count * wide + 1, 7);
        CHECK(mptl_cuda_cast_rows(floats.data(), MPTL_CUDA_CAST_F32, &source, count, c, wide,
                                  NULL) == 0,
              "refused");
        CHECK(mptl_cuda_cast_rows(bf16.data(), MPTL_CUDA_CAST_BF16, &source, count, c, wide,
                                  NULL) == 0,
              "refused");
        if (bytes == 1)
          mptl_cuda_cast_rows(again.data(), MPTL_CUDA_CAST_CODE8, &source, count, c, wide, NULL);
        for (size_t i = 0; i < count * wide; i++) {
          uint32_t want = i % wide < c ? mptl_f32_bits(x[i / wide * c + i % wide]) : 0;
          CHECK(mptl_f32_bits(floats[i]) == want, "%s, %zu of %zu: element %zu is %a", name, c,
                wide, i, (double)floats[i]);
          CHECK(bf16[i] == want >> 16, "%s, %zu of %zu: element %zu is %04X in bf16", name, c, wide,
                i, bf16[i]);
          CHECK(bytes != 1 || again[i] == mptl_encode_bits(want, &r), "%s, %zu of %zu: code %zu",
                name, c, wide, i);
        }
        CHECK(floats[count * wide] == 7 && bf16[count * wide] == 7 && again[count * wide] == 7,
              "wrote beyond the end");
      }
  for (const auto &size : sizes)
    for (size_t count : {0, 1, 7, 1013}) {
      const size_t c = size.c, wide = size.wide, n = count * c;
      mptl_rounder r = make_rounder("FP(5,2,0)", MPTL_STOCHASTIC, MPTL_INF);
      std::vector<float> x(count * wide), bias(c);
      for (float &v : x) v = random_float(&state, 1e3f);
      for (float &v : bias) v = random_float(&state, 10);
      std::vector<uint8_t> codes(n + 1, 7);
      mptl_round_stats got = {}, want = {};
      mptl_exponents exponents[2] = {};
      mptl_sink s = {};
      s.data = codes.data(), s.size = 1, s.rounder = &r, s.stats = &got,
      s.exponents = &exponents[0];
      s.key = mptl_make_key(8, MPTL_STREAM_ROUND, 3, 4), s.index0 = 128;
      CHECK(mptl_cuda_write_rows(&s, x.data(), count, wide, bias.data(), c, NULL) == 0, "refused");
      for (size_t i = 0; i < n; i++) {
        uint32_t event = 0, u = mptl_f32_bits(x[i / c * wide + i % c] + bias[i % c]);
        uint32_t y = mptl_round_bits(u, &r, s.key, s.index0 + i, &event);
        mptl_count_exponent(&exponents[1], u);
        mptl_count(&want, u, event);
        CHECK(codes[i] == mptl_encode_bits(y, &r), "%zu of %zu: code %zu is %X", c, wide, i,
              codes[i]);
      }
      check_stats("rows that are cut off", &got, &want);
      CHECK(memcmp(&exponents[0], &exponents[1], sizeof exponents[0]) == 0,
            "%zu of %zu: exponents differ", c, wide);
      CHECK(codes[n] == 7, "wrote beyond the end");
    }
}

static void others(void) {
  uint64_t state = 6;
  mptl_rounder r = make_rounder("FP(4,3,4)", MPTL_NEAREST_EVEN, MPTL_SATURATE);
  for (size_t n : {(size_t)0, (size_t)1, (size_t)997, (size_t)20011}) {
    std::vector<float> x(n + 1), y(n + 1, 1);
    for (float &v : x) v = random_float(&state, 3);
    mptl_cuda_fill(y.data(), 2.5f, n, NULL);
    for (size_t i = 0; i <= n; i++) CHECK(y[i] == (i < n ? 2.5f : 1), "fill: element %zu", i);
    std::vector<uint8_t> codes(n + 8);
    std::vector<uint16_t> bf16(n + 1, 7);
    mptl_cuda_encode(codes.data(), x.data(), n, &r, mptl_key{}, 0, NULL, NULL);
    size_t from = n / 3, left = n - from;
    mptl_source source = {codes.data(), 1, &r}, part = {codes.data() + from, 1, &r};
    mptl_cuda_cast_rows(bf16.data(), MPTL_CUDA_CAST_BF16, &part, 1, left, left, NULL);
    mptl_cuda_cast_rows(y.data(), MPTL_CUDA_CAST_F32, &part, 1, left, left, NULL);
    for (size_t i = 0; i < n - from; i++) {
      uint32_t bits = mptl_decode_code(codes[from + i], &r);
      CHECK(bf16[i] == bits >> 16 && mptl_f32_bits(y[i]) == bits, "cast: element %zu", i);
    }
    CHECK(bf16[n - from] == 7, "cast wrote beyond the end");
    std::vector<uint8_t> again(n + 1, 7);
    mptl_source floats = {y.data(), 4, &r};
    mptl_cuda_cast_rows(again.data(), MPTL_CUDA_CAST_CODE8, &floats, 1, left, left, NULL);
    CHECK(memcmp(again.data(), codes.data() + from, n - from) == 0 && again[n - from] == 7,
          "cast to codes");
    float largest = 0.25f, max = n ? 0.0f : 0.25f;
    for (size_t i = 0; i < n; i++)
      max = fmaxf(max, fmaxf(0.25f, fabsf(mptl_bits_f32(mptl_decode_code(codes[i], &r)))));
    mptl_cuda_max_abs(&largest, &source, n, NULL);
    CHECK(largest == max, "largest magnitude %a, expected %a", (double)largest, (double)max);
  }
  mptl_round_stats got = {};
  std::vector<uint8_t> codes(37);
  mptl_sink s = {};
  s.data = codes.data(), s.size = 1, s.rounder = &r, s.stats = &got;
  mptl_cuda_write_constant(&s, 1000.0f, 37, NULL);
  CHECK(got.elements == 37 && got.overflow == 37 && got.max_abs == 1000 && codes[36] == r.max_code,
        "a constant beyond the range");
}

/* Lists of arrays: mixed formats, modes, sizes (also 0) and starts, with and without statistics and
 * exponents, in place or not, two arrays with the same statistics, short and long lists. Nothing
 * outside the elements is written. */
static void lists(void) {
  static const char *const names[] = {"FP(4,3,4)", "fp32", "FP(6,9,0)", "FP(5,2,0)", "FP(8,7,-4)"};
  static const size_t sizes[] = {1, 0, 7, 2048, 2049, 513, 4099, 16, 30011};
  enum { PAD = 9 };
  uint64_t state = 12;
  std::vector<mptl_rounder> rounders;
  for (const char *name : names)
    for (mptl_rounding_mode mode : {MPTL_NEAREST_EVEN, MPTL_STOCHASTIC})
      rounders.push_back(make_rounder(name, mode, MPTL_INF));
  for (int arrays : {0, 1, 2, 4, 5, 33, (int)MPTL_CUDA_ROUNDINGS}) {
    size_t count = (size_t)arrays;
    std::vector<std::vector<float>> src(count), dst(count);
    std::vector<mptl_round_stats> got(count), want(count);
    std::vector<mptl_exponents> exponents(count), expected(count);
    std::vector<mptl_rounding> list(count);
    for (size_t k = 0; k < count; k++) {
      size_t n = sizes[(k + count) % (sizeof sizes / sizeof *sizes)], start = k % PAD,
             same = k % 6 == 5 ? k - 1 : k;
      src[k].resize(n + PAD);
      for (float &v : src[k]) v = random_float(&state, 40);
      if (n > 3) src[k][start] = NAN, src[k][start + 1] = -INFINITY, src[k][start + 2] = 1e30f;
      dst[k].assign(n + PAD, 77);
      bool in_place = k % 4 == 1, only_exponents = k % 7 == 3;
      if (in_place) dst[k] = src[k];
      mptl_rounding *a = &list[k];
      a->dst = only_exponents ? NULL : dst[k].data() + start;
      a->src = in_place ? dst[k].data() + start : src[k].data() + start;
      a->n = n;
      a->rounder = only_exponents ? NULL : &rounders[k % rounders.size()];
      a->key = mptl_make_key(5, MPTL_STREAM_ROUND, (uint32_t)k, 2);
      a->index0 = k % 3 == 0 ? (uint64_t)k << 32 : 17 * k;
      a->stats = k % 5 == 2 ? NULL : &got[same];
      a->exponents = only_exponents || k % 3 == 1 ? &exponents[same] : NULL;
      for (size_t i = 0; i < n; i++) {
        uint32_t u = mptl_f32_bits(src[k][start + i]), event;
        if (a->exponents != NULL) mptl_count_exponent(&expected[same], u);
        if (only_exponents) continue;
        mptl_round_bits(u, a->rounder, a->key, a->index0 + i, &event);
        if (a->stats != NULL) mptl_count(&want[same], u, event);
      }
    }
    CHECK(mptl_cuda_round_list(list.data(), count, NULL) == 0, "a list of %zu", count);
    for (size_t k = 0; k < count; k++) {
      size_t start = k % PAD;
      for (size_t i = 0; i < dst[k].size(); i++) {
        bool inside = i >= start && i < start + list[k].n && list[k].dst != NULL;
        uint32_t event, y = mptl_f32_bits(k % 4 == 1 ? src[k][i] : 77);
        if (inside)
          y = mptl_round_bits(mptl_f32_bits(src[k][i]), list[k].rounder, list[k].key,
                              list[k].index0 + i - start, &event);
        CHECK(mptl_f32_bits(dst[k][i]) == y, "list of %zu, array %zu of %zu: element %zu", count, k,
              list[k].n, i - start);
      }
      check_stats("list", &got[k], &want[k]);
      CHECK(memcmp(&exponents[k], &expected[k], sizeof expected[k]) == 0,
            "list of %zu: exponents of array %zu", count, k);
    }
  }
  CHECK(mptl_cuda_round_list(NULL, MPTL_CUDA_ROUNDINGS + 1, NULL) != 0,
        "a list that is too long is refused");
}

int main(void) {
  rounding();
  decoding();
  in_both_orders([] {
    lengths();
    accumulation();
    sinks();
    rows();
    others();
    lists();
  });
  return failures != 0;
}

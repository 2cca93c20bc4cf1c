/* Weights that are rounded into the libraries' order, and gradients that are copied back, compared
 * with loops over all places and the scalar definition. */
#include "support.h"

static mptl_cuda_weights shape_of(size_t k, size_t c, size_t s) {
  mptl_cuda_weights w;
  w.k = k, w.c = c, w.s = s;
  return w;
}

/* Shapes whose tiles are several filters, one filter, or a part of one with many channels, many
 * places, or both. */
static const mptl_cuda_weights shapes[] = {
    shape_of(1, 1, 1),     shape_of(3, 1, 9),    shape_of(5, 3, 9),   shape_of(16, 8, 1),
    shape_of(7, 4, 6),     shape_of(40, 33, 9),  shape_of(1, 3, 9),   shape_of(90, 3, 9),
    shape_of(13, 64, 9),   shape_of(2, 512, 9),  shape_of(3, 260, 9), shape_of(1, 229, 9),
    shape_of(3, 47, 49),   shape_of(2, 40, 16),  shape_of(2, 7, 300), shape_of(1, 20, 784),
    shape_of(2, 150, 141), shape_of(1, 2049, 1), shape_of(2, 1, 3000)};
static const size_t shifts[] = {0, 1, 2}; /* elements beyond an address that is a multiple of 16 */

/* Element i of packed weights in a type, as a number. */
static float packed_at(const void *packed, mptl_cuda_cast_type type, size_t i,
                       const mptl_rounder *r) {
  if (type == MPTL_CUDA_CAST_CODE8)
    return mptl_bits_f32(mptl_decode_code(((const uint8_t *)packed)[i], r));
  if (type == MPTL_CUDA_CAST_BF16)
    return mptl_bits_f32((uint32_t)((const uint16_t *)packed)[i] << 16);
  return ((const float *)packed)[i];
}

static void check_packing(mptl_cuda_weights shape, size_t shift, mptl_cuda_cast_type type,
                          const mptl_rounder *r, const char *name) {
  const size_t n = shape.k * shape.c * shape.s;
  uint64_t state = n;
  const size_t size = type == MPTL_CUDA_CAST_CODE8 ? 1 : type == MPTL_CUDA_CAST_BF16 ? 2 : 4;
  std::vector<float> source(n + shift);
  float *x = source.data() + shift;
  std::vector<uint8_t> packed((n + 2 * shift) * size, 0x77);
  uint8_t *to = packed.data() + shift * size;
  for (float &v : source) v = random_float(&state, 40);
  x[n / 2] = 0;
  mptl_round_stats got = {}, want = {};
  mptl_exponents got_exponents = {}, want_exponents = {};
  mptl_rounding how = {};
  how.src = x, how.rounder = r, how.index0 = (uint64_t)7 << 32;
  how.key = mptl_make_key(5, MPTL_STREAM_ROUND, 1, 2);
  how.stats = r != NULL ? &got : NULL, how.exponents = &got_exponents;
  CHECK(mptl_cuda_round_weights(to, type, &how, shape, NULL) == 0, "%s: packing is refused", name);
  for (size_t k = 0; k < shape.k; k++)
    for (size_t c = 0; c < shape.c; c++)
      for (size_t s = 0; s < shape.s; s++) {
        size_t from = (k * shape.c + c) * shape.s + s, place = (k * shape.s + s) * shape.c + c;
        uint32_t u = mptl_f32_bits(x[from]), event = 0, y = u;
        if (r != NULL) y = mptl_round_bits(u, r, how.key, how.index0 + from, &event);
        if (r != NULL) mptl_count(&want, u, event);
        mptl_count_exponent(&want_exponents, u);
        float there = packed_at(to, type, place, r);
        CHECK(mptl_f32_bits(there) == y, "%s, %zux%zux%zu: weight (%zu, %zu, %zu) is %a", name,
              shape.k, shape.c, shape.s, k, c, s, (double)there);
      }
  if (r != NULL) check_stats(name, &got, &want);
  CHECK(memcmp(&got_exponents, &want_exponents, sizeof got_exponents) == 0, "%s: exponents", name);
  for (size_t i = 0; i < shift * size; i++)
    CHECK(packed[i] == 0x77 && packed[packed.size() - 1 - i] == 0x77,
          "%s: something beside the weights is written", name);
}

static void packing(mptl_cuda_weights shape, size_t shift) {
  check_packing(shape, shift, MPTL_CUDA_CAST_F32, NULL, "binary32");
  for (mptl_rounding_mode mode : {MPTL_NEAREST_EVEN, MPTL_STOCHASTIC}) {
    mptl_rounder low = make_rounder("FP(4,3,4)", mode, MPTL_SATURATE),
                 high = make_rounder("FP(6,9,0)", mode, MPTL_SATURATE);
    mptl_rounder ocp = make_rounder("fp8_e4m3fn", mode, MPTL_SATURATE);
    check_packing(shape, shift, MPTL_CUDA_CAST_F32, &high, "FP(6,9,0) in binary32");
    check_packing(shape, shift, MPTL_CUDA_CAST_BF16, &low, "FP(4,3,4) in bf16");
    check_packing(shape, shift, MPTL_CUDA_CAST_CODE8, &ocp, "fp8_e4m3fn in codes");
  }
}

static void unpacking(mptl_cuda_weights shape, size_t shift) {
  uint64_t state = 3;
  const size_t n = shape.k * shape.c * shape.s;
  std::vector<float> gradients(n + shift), back(n + 2 * shift, 77.0f);
  for (float &v : gradients) v = random_float(&state, 1);
  CHECK(mptl_cuda_unpack_weights(back.data() + shift, gradients.data() + shift, shape, NULL) == 0,
        "unpacking is refused");
  for (size_t i = 0; i < n; i++) {
    size_t k = i / (shape.c * shape.s), c = i / shape.s % shape.c, s = i % shape.s;
    CHECK(back[shift + i] == gradients[shift + (k * shape.s + s) * shape.c + c],
          "%zux%zux%zu: gradient %zu", shape.k, shape.c, shape.s, i);
  }
  for (size_t i = 0; i < shift; i++)
    CHECK(back[i] == 77.0f && back[back.size() - 1 - i] == 77.0f,
          "something beside the gradients is written");
}

int main(void) {
  in_both_orders([] {
    for (const mptl_cuda_weights &shape : shapes)
      for (size_t shift : shifts) {
        packing(shape, shift);
        unpacking(shape, shift);
      }
  });
  return failures > 0;
}

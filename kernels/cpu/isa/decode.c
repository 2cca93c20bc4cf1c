/* Decoding of arrays: whole vectors by vector code, the rest by the scalar definition. */
#include <stdint.h>

#include "kernels/cpu/ahead.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vec_half.h"
#include "kernels/cpu/vec_round.h"
#include "mptl/round.h"

#if defined(MPTL_ISA_avx512)

/* A format of at most 8 bits in registers: the upper halves of its values, by code without sign. */
typedef struct halves {
  __m512i table[4], sign_bit, magnitude, to_sign;
} halves;

static inline halves load_halves(const mptl_rounder *r) {
  halves h;
  for (int i = 0; i < 4; i++) h.table[i] = _mm512_loadu_si512(r->halves + 32 * i);
  h.sign_bit = _mm512_set1_epi16((short)r->code_sign);
  h.magnitude = _mm512_set1_epi16((short)(r->code_sign - 1));
  h.to_sign = _mm512_set1_epi16((short)(15 - r->format.e - r->format.m));
  return h;
}

/* The upper halves of the binary32 patterns of 32 codes. */
static inline __m512i decode_32(__m256i codes, const halves *h) {
  __m512i code = _mm512_cvtepu8_epi16(codes), index = _mm512_and_si512(code, h->magnitude);
  __m512i low = _mm512_permutex2var_epi16(h->table[0], index, h->table[1]),
          high = _mm512_permutex2var_epi16(h->table[2], index, h->table[3]);
  __m512i half =
      _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(index, _mm512_set1_epi16(64)), high);
  return _mm512_or_si512(half, _mm512_sllv_epi16(_mm512_and_si512(code, h->sign_bit), h->to_sign));
}

/* Decodes n codes of at most 8 bits to the upper halves. */
static inline void decode_by_table(uint16_t *dst, const uint8_t *codes, size_t n, const halves *h) {
  size_t i = 0;
  for (; i + 32 <= n; i += 32)
    _mm512_storeu_si512(dst + i, decode_32(_mm256_loadu_si256((const void *)(codes + i)), h));
  if (i < n) {
    const __mmask32 rest = (1u << (n - i)) - 1;
    _mm512_mask_storeu_epi16(dst + i, rest, decode_32(_mm256_maskz_loadu_epi8(rest, codes + i), h));
  }
}

#endif

#if MPTL_VEC

static inline vu load_codes(const void *codes, size_t i, const size_t size) {
  if (size == 1) return v_load8((const uint8_t *)codes + i);
  return size == 2 ? v_load16((const uint16_t *)codes + i) : v_load((const uint32_t *)codes + i);
}

/* Decodes whole vectors of codes of `size` bytes to binary32 or to its upper half. Returns the
 * number of codes that it decoded. */
static inline __attribute__((always_inline)) size_t decode_vectors(void *dst, const void *codes,
                                                                   size_t n, const mptl_rounder *r,
                                                                   const size_t size,
                                                                   const bool bf16,
                                                                   const bool signed_codes) {
  size_t i = 0;
  for (; i + VN <= n; i += VN) {
    mptl_fetch_ahead((const char *)codes + i * size, size);
    vu x = vec_decode(load_codes(codes, i, size), r, signed_codes);
    if (bf16)
      v_store16((uint16_t *)dst + i, v_shr(x, 16));
    else
      v_store((float *)dst + i, x);
  }
  return i;
}

/* Decodes n codes of a format whose values are all finite in binary16. Returns n. */
static inline size_t decode_halves(float *dst, const uint8_t *codes, size_t n,
                                   const mptl_rounder *r) {
  const vec_half half = vec_half_for(r);
  vu x[2];
  size_t i = 0;
  for (; i + 2 * VN <= n; i += 2 * VN) {
    mptl_fetch_ahead(codes + i, 1);
    vec_half_convert(x, v_load8_16(codes + i), &half);
    v_store(dst + i, v_fmul(x[0], half.scale));
    v_store(dst + i + VN, v_fmul(x[1], half.scale));
  }
  if (i == n) return n;
  const size_t rest = n - i, first = rest < VN ? rest : VN;
  vec_half_convert(x, v_load8_16_first(codes + i, rest), &half);
  v_store_first(dst + i, v_fmul(x[0], half.scale), first);
  v_store_first(dst + i + first, v_fmul(x[1], half.scale), rest - first);
  return n;
}

/* Decodes whole vectors of a format for which vec_decodes holds. Returns the number of codes that
 * it decoded. */
static inline __attribute__((always_inline)) size_t decode_whole(void *dst, const void *codes,
                                                                 size_t n,
                                                                 const mptl_rounder *given,
                                                                 size_t size, const bool bf16) {
  const mptl_rounder r = *given;
  const bool full = r.code_sign == 1u << (8 * size - 1);
  if (!bf16 && vec_half_decodes(&r) && vec_half_limit(&r) >= r.code_sign)
    return decode_halves(dst, codes, n, &r);
  if (size == 1 && full) return decode_vectors(dst, codes, n, &r, 1, bf16, true);
  if (size == 1) return decode_vectors(dst, codes, n, &r, 1, bf16, false);
  if (size == 2 && full) return decode_vectors(dst, codes, n, &r, 2, bf16, true);
  if (size == 2) return decode_vectors(dst, codes, n, &r, 2, bf16, false);
  return decode_vectors(dst, codes, n, &r, 4, bf16, false);
}

#endif

static void decode_scalar(void *dst, const void *codes, size_t n, const mptl_rounder *r,
                          size_t size, bool bf16) {
  for (size_t i = 0; i < n; i++) {
    uint32_t code = size == 1   ? ((const uint8_t *)codes)[i]
                    : size == 2 ? ((const uint16_t *)codes)[i]
                                : ((const uint32_t *)codes)[i];
    uint32_t bits = mptl_decode_code(code, r);
    if (bf16)
      ((uint16_t *)dst)[i] = (uint16_t)(bits >> 16);
    else
      ((float *)dst)[i] = mptl_bits_f32(bits);
  }
}

/* Decodes n codes of any format. The rest after the whole vectors is decoded as a vector that is
 * filled up with zeros. */
static inline __attribute__((always_inline)) void decode(void *dst, const void *codes, size_t n,
                                                         const mptl_rounder *r, const bool bf16) {
  const size_t size = mptl_code_size(r->format);
#if MPTL_VEC
  if (vec_decodes(r)) {
    const size_t bytes = bf16 ? sizeof(uint16_t) : sizeof(float),
                 i = decode_whole(dst, codes, n, r, size, bf16);
    if (i == n) return;
    uint32_t rest[VN] = {0}, values[VN];
    memcpy(rest, (const char *)codes + i * size, (n - i) * size);
    decode_whole(values, rest, VN, r, size, bf16);
    memcpy((char *)dst + i * bytes, values, (n - i) * bytes);
    return;
  }
#endif
  decode_scalar(dst, codes, n, r, size, bf16);
}

void MPTL_CPU(decode_f32)(float *dst, const void *codes, size_t n, const mptl_rounder *r) {
  decode(dst, codes, n, r, false);
}

void MPTL_CPU(decode_bf16_rows)(uint16_t *dst, size_t to_step, const void *codes, size_t step,
                                size_t columns, size_t rows, const mptl_rounder *r) {
#if defined(MPTL_ISA_avx512)
  if (r->has_halves) {
    const halves h = load_halves(r);
    for (size_t i = 0; i < rows; i++)
      decode_by_table(dst + i * to_step, (const uint8_t *)codes + i * step, columns, &h);
    return;
  }
#endif
  const size_t size = mptl_code_size(r->format);
  for (size_t i = 0; i < rows; i++)
    decode(dst + i * to_step, (const char *)codes + i * step * size, columns, r, true);
}

void MPTL_CPU(decode_bf16)(uint16_t *dst, const void *codes, size_t n, const mptl_rounder *r) {
  MPTL_CPU(decode_bf16_rows)(dst, n, codes, n, n, 1, r);
}

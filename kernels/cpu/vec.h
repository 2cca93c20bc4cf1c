/* Vectors of 32-bit lanes: the operations that the bit-level kernels need, for AVX2 (8 lanes) and
 * AVX-512 (16 lanes).
 *
 * vu is a vector of VN lanes, vm a mask of lanes. Shifts with a count for each lane give 0 for
 * counts outside 0 to 31. In the scalar and NEON builds MPTL_VEC is 0 and nothing else is defined:
 * the kernels run the scalar definition.
 */
#ifndef MPTL_KERNELS_CPU_VEC_H
#define MPTL_KERNELS_CPU_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(MPTL_ISA_avx512)

#include <immintrin.h>
#define MPTL_VEC 1
#define MPTL_VEC_UNSIGNED 1 /* v_unsigned is defined */
enum { VN = 16 };
typedef __m512i vu;
typedef __mmask16 vm;

static inline vu v_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void v_store(void *p, vu x) { _mm512_storeu_si512(p, x); }
static inline void v_store_nontemporal(void *p, vu x) {
  _mm512_stream_si512(p, x);
} /* p is aligned to the vector */
static inline vu v_set(uint32_t x) { return _mm512_set1_epi32((int)x); }
static inline vu v_and(vu a, vu b) { return _mm512_and_si512(a, b); }
static inline vu v_andnot(vu a, vu b) { return _mm512_andnot_si512(a, b); } /* ~a & b */
static inline vu v_or(vu a, vu b) { return _mm512_or_si512(a, b); }
static inline vu v_xor(vu a, vu b) { return _mm512_xor_si512(a, b); }
static inline vu v_xor3(vu a, vu b, vu c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
static inline vu v_add(vu a, vu b) { return _mm512_add_epi32(a, b); }
static inline vu v_sub(vu a, vu b) { return _mm512_sub_epi32(a, b); }
static inline vu v_or_and(vu a, vu b, vu c) { /* a | (b & c) */
  return _mm512_ternarylogic_epi32(b, c, a, 0xEA);
}
static inline vu v_max(vu a, vu b) { return _mm512_max_epi32(a, b); } /* signed */
static inline vu v_min(vu a, vu b) { return _mm512_min_epi32(a, b); }
static inline vu v_sub_halves(vu a, vu b) { /* of 16 bits each; 0 where a is less, unsigned */
  return _mm512_subs_epu16(a, b);
}
static inline vu v_shrv(vu a, vu n) { return _mm512_srlv_epi32(a, n); }
static inline vu v_shlv(vu a, vu n) { return _mm512_sllv_epi32(a, n); }
static inline vu v_float(vu a) {
  return _mm512_castps_si512(_mm512_cvtepi32_ps(a));
} /* the patterns of integers below 2^24 */
static inline vu v_fadd(vu a, vu b) { /* of patterns, as binary32 */
  return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}
static inline vu v_fsub(vu a, vu b) {
  return _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}
static inline vu v_fmul(vu a, vu b) {
  return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}
static inline vu v_fmsub(vu a, vu b, vu c) { /* a * b - c, rounded once */
  return _mm512_castps_si512(
      _mm512_fmsub_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(c)));
}
static inline vu v_ffloor(vu a) { /* of patterns of numbers >= 0 */
  return _mm512_castps_si512(
      _mm512_roundscale_ps(_mm512_castsi512_ps(a), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC));
}
static inline vu v_unsigned(vu a) {
  return _mm512_cvttps_epu32(_mm512_castsi512_ps(a));
} /* to integers, toward zero */
static inline vm v_gt(vu a, vu b) { return _mm512_cmpgt_epi32_mask(a, b); } /* signed */
static inline vm v_lt_unsigned(vu a, vu b) { return _mm512_cmplt_epu32_mask(a, b); }
static inline vm v_in(vu a, uint32_t last) { /* 0 < a <= last, below 2^31 */
  return _mm512_cmplt_epu32_mask(_mm512_sub_epi32(a, v_set(1)), v_set(last));
}
static inline vm v_eq(vu a, vu b) { return _mm512_cmpeq_epi32_mask(a, b); }
static inline vm v_both(vm a, vm b) { return a & b; }
static inline vm v_either(vm a, vm b) { return a | b; }
static inline int v_any(vm m) { return m != 0; }
static inline vu v_select(vm m, vu a, vu b) {
  return _mm512_mask_mov_epi32(b, m, a);
} /* m ? a : b */
static inline vu v_keep(vm m, vu a) { return _mm512_maskz_mov_epi32(m, a); } /* m ? a : 0 */
static inline vu v_count(vu n, vm m) {
  return _mm512_mask_sub_epi32(n, m, n, _mm512_set1_epi32(-1));
} /* m ? n + 1 : n */

/* Store the low byte or half of each lane; load bytes or halves, extended by their sign. */
static inline void v_store8(uint8_t *p, vu x) {
  _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(x));
}
static inline void v_store16(uint16_t *p, vu x) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(x));
}
/* The lanes of four vectors as bytes, those of two as halves, in order. They must fit. */
static inline vu v_pack8(vu a, vu b, vu c, vu d) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(
      order, _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d)));
}
/* The same with the lanes' signs, of x, as the bytes' signs. *zero is set to whether a byte is 0
 * without its sign. */
static inline vu v_pack8_signed(const vu a[4], const vu x[4], bool *zero) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const vu bytes =
      _mm512_packus_epi16(_mm512_packus_epi32(a[0], a[1]), _mm512_packus_epi32(a[2], a[3]));
  const vu signs =
      _mm512_packs_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3]));
  *zero = _mm512_testn_epi8_mask(bytes, bytes) != 0;
  return _mm512_permutexvar_epi32(order, v_or_and(bytes, signs, _mm512_set1_epi8(-128)));
}
static inline vu v_pack16(vu a, vu b) {
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  return _mm512_permutexvar_epi64(order, _mm512_packus_epi32(a, b));
}
static inline vu v_load8(const uint8_t *p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline vu v_load16(const uint16_t *p) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p));
}

/* The first n lanes, 0 to VN. Loading gives 0 for the others, storing leaves memory unchanged. */
static inline __mmask16 v_first(size_t n) { return (__mmask16)((1u << n) - 1); }
static inline vu v_load_first(const void *p, size_t n) {
  return _mm512_maskz_loadu_epi32(v_first(n), p);
}
static inline void v_store_first(void *p, vu x, size_t n) {
  _mm512_mask_storeu_epi32(p, v_first(n), x);
}

/* The same registers as lanes of 16 bits: 2 VN bytes, extended by their sign; those of the first n
 * bytes, 0 for the others; shifts by the same number of bits; the first and the last VN lanes,
 * converted from binary16 to binary32. */
static inline vu v_load8_16(const uint8_t *p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
static inline vu v_load8_16_first(const uint8_t *p, size_t n) {
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8((__mmask32)(((uint64_t)1 << n) - 1), p));
}
static inline vu v_shl16(vu x, unsigned n) {
  return _mm512_sllv_epi16(x, _mm512_set1_epi16((short)n));
}
static inline vu v_half_low(vu x) {
  return _mm512_castps_si512(_mm512_cvtph_ps(_mm512_castsi512_si256(x)));
}
static inline vu v_half_high(vu x) {
  return _mm512_castps_si512(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1)));
}

/* The same registers as 64-bit lanes. */
static inline vu v64_set(uint64_t x) { return _mm512_set1_epi64((long long)x); }
static inline vu v64_add(vu a, vu b) { return _mm512_add_epi64(a, b); }
static inline vu v64_mul_low(vu a, vu b) {
  return _mm512_mul_epu32(a, b);
} /* products of the lower halves of lanes */
static inline vu v64_high(vu a) { return _mm512_srli_epi64(a, 32); }
static inline vu v64_join(vu a,
                          vu b) { /* lower halves from a, upper halves from the lower halves of b */
  return _mm512_castps_si512(
      _mm512_mask_moveldup_ps(_mm512_castsi512_ps(a), 0xaaaa, _mm512_castsi512_ps(b)));
}

#elif defined(MPTL_ISA_avx2)

#include <immintrin.h>
#define MPTL_VEC 1
enum { VN = 8 };
typedef __m256i vu;
typedef __m256i vm;

static inline vu v_load(const void *p) { return _mm256_loadu_si256(p); }
static inline void v_store(void *p, vu x) { _mm256_storeu_si256(p, x); }
static inline void v_store_nontemporal(void *p, vu x) { _mm256_stream_si256(p, x); }
static inline vu v_set(uint32_t x) { return _mm256_set1_epi32((int)x); }
static inline vu v_and(vu a, vu b) { return _mm256_and_si256(a, b); }
static inline vu v_andnot(vu a, vu b) { return _mm256_andnot_si256(a, b); }
static inline vu v_or(vu a, vu b) { return _mm256_or_si256(a, b); }
static inline vu v_xor(vu a, vu b) { return _mm256_xor_si256(a, b); }
static inline vu v_xor3(vu a, vu b, vu c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
static inline vu v_add(vu a, vu b) { return _mm256_add_epi32(a, b); }
static inline vu v_sub(vu a, vu b) { return _mm256_sub_epi32(a, b); }
static inline vu v_or_and(vu a, vu b, vu c) { return _mm256_or_si256(a, _mm256_and_si256(b, c)); }
static inline vu v_max(vu a, vu b) { return _mm256_max_epi32(a, b); }
static inline vu v_min(vu a, vu b) { return _mm256_min_epi32(a, b); }
static inline vu v_sub_halves(vu a, vu b) { return _mm256_subs_epu16(a, b); }
static inline vu v_shrv(vu a, vu n) { return _mm256_srlv_epi32(a, n); }
static inline vu v_shlv(vu a, vu n) { return _mm256_sllv_epi32(a, n); }
static inline vu v_float(vu a) { return _mm256_castps_si256(_mm256_cvtepi32_ps(a)); }
static inline vu v_fadd(vu a, vu b) {
  return _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}
static inline vu v_fsub(vu a, vu b) {
  return _mm256_castps_si256(_mm256_sub_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}
static inline vu v_fmul(vu a, vu b) {
  return _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}
static inline vu v_fmsub(vu a, vu b, vu c) {
  return _mm256_castps_si256(
      _mm256_fmsub_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), _mm256_castsi256_ps(c)));
}
static inline vm v_gt(vu a, vu b) { return _mm256_cmpgt_epi32(a, b); }
static inline vm v_lt_unsigned(vu a, vu b) {
  vu flip = _mm256_set1_epi32(INT32_MIN);
  return _mm256_cmpgt_epi32(_mm256_xor_si256(b, flip), _mm256_xor_si256(a, flip));
}
static inline vm v_in(vu a, uint32_t last) {
  return _mm256_andnot_si256(v_gt(a, v_set(last)), v_gt(a, v_set(0)));
}
static inline vm v_eq(vu a, vu b) { return _mm256_cmpeq_epi32(a, b); }
static inline vm v_both(vm a, vm b) { return _mm256_and_si256(a, b); }
static inline vm v_either(vm a, vm b) { return _mm256_or_si256(a, b); }
static inline int v_any(vm m) { return !_mm256_testz_si256(m, m); }
static inline vu v_select(vm m, vu a, vu b) { return _mm256_blendv_epi8(b, a, m); }
static inline vu v_keep(vm m, vu a) { return _mm256_and_si256(m, a); }
static inline vu v_count(vu n, vm m) { return _mm256_sub_epi32(n, m); }

static inline vu v_pack8(vu a, vu b, vu c, vu d) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(
      _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d)), order);
}
static inline vu v_pack8_signed(const vu a[4], const vu x[4], bool *zero) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const vu bytes =
      _mm256_packus_epi16(_mm256_packus_epi32(a[0], a[1]), _mm256_packus_epi32(a[2], a[3]));
  const vu signs =
      _mm256_packs_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
  *zero = _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())) != 0;
  return _mm256_permutevar8x32_epi32(v_or_and(bytes, signs, _mm256_set1_epi8(-128)), order);
}
static inline vu v_pack16(vu a, vu b) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
}

/* The low halves of 8 lanes, in order, in 16 bytes. */
static inline __m128i v_low_halves(vu x) {
  vu low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08));
}
static inline void v_store8(uint8_t *p, vu x) {
  __m128i halves = v_low_halves(_mm256_and_si256(x, _mm256_set1_epi32(0xff)));
  _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(halves, halves));
}
static inline void v_store16(uint16_t *p, vu x) { _mm_storeu_si128((__m128i *)p, v_low_halves(x)); }
static inline vu v_load8(const uint8_t *p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}
static inline vu v_load16(const uint16_t *p) {
  return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p));
}

static inline vm v_first(size_t n) {
  static const int lanes[2 * VN] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256((const __m256i *)(lanes + VN - n));
}
static inline vu v_load_first(const void *p, size_t n) {
  return _mm256_maskload_epi32(p, v_first(n));
}
static inline void v_store_first(void *p, vu x, size_t n) {
  _mm256_maskstore_epi32(p, v_first(n), x);
}
static inline vu v_load8_16(const uint8_t *p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}
static inline vu v_load8_16_first(const uint8_t *p, size_t n) {
  uint8_t all[16] = {0};
  memcpy(all, p, n);
  return v_load8_16(all);
}
static inline vu v_shl16(vu x, unsigned n) {
  return _mm256_mullo_epi16(x, _mm256_set1_epi16((short)(1 << n)));
}
static inline vu v_half_low(vu x) {
  return _mm256_castps_si256(_mm256_cvtph_ps(_mm256_castsi256_si128(x)));
}
static inline vu v_half_high(vu x) {
  return _mm256_castps_si256(_mm256_cvtph_ps(_mm256_extracti128_si256(x, 1)));
}

static inline vu v64_set(uint64_t x) { return _mm256_set1_epi64x((long long)x); }
static inline vu v64_add(vu a, vu b) { return _mm256_add_epi64(a, b); }
static inline vu v64_mul_low(vu a, vu b) { return _mm256_mul_epu32(a, b); }
static inline vu v64_high(vu a) { return _mm256_srli_epi64(a, 32); }
static inline vu v64_join(vu a, vu b) {
  return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xaa);
}

#else
#define MPTL_VEC 0
#endif

#if MPTL_VEC

/* Shifts of all lanes by the same number of bits. A count in a vector takes one instruction, one in
 * a narrow register two. */
static inline vu v_shr(vu a, unsigned n) { return v_shrv(a, v_set(n)); }
static inline vu v_shl(vu a, unsigned n) { return v_shlv(a, v_set(n)); }

#endif

#endif

/* Rounding and encoding of arrays: whole vectors by vector code, the rest by the scalar
 * definition. */
#include "kernels/cpu/table.h"
#include "kernels/cpu/vec_round.h"
#include "mptl/round.h"

/* What a loop writes for each element. */
typedef enum output { AS_F32, AS_CODE8, AS_CODE16, AS_CODE32 } output;

/* One loop over an array. */
typedef struct loop {
  void *dst;
  const float *src;
  const mptl_rounder *r;
  mptl_key key;
  uint64_t index0;
} loop;

static inline void put(void *dst, size_t i, uint32_t u, const mptl_rounder *r, const output as) {
  switch (as) {
    case AS_F32:
      ((float *)dst)[i] = mptl_bits_f32(u);
      break;
    case AS_CODE8:
      ((uint8_t *)dst)[i] = (uint8_t)mptl_encode_bits(u, r);
      break;
    case AS_CODE16:
      ((uint16_t *)dst)[i] = (uint16_t)mptl_encode_bits(u, r);
      break;
    case AS_CODE32:
      ((uint32_t *)dst)[i] = mptl_encode_bits(u, r);
      break;
  }
}

/* Rounds the elements from begin to end one by one. */
static void loop_scalar(const loop *l, size_t begin, size_t end, const output as,
                        mptl_round_stats *stats) {
  for (size_t i = begin; i < end; i++) {
    uint32_t u = mptl_f32_bits(l->src[i]), event;
    put(l->dst, i, mptl_round_bits(u, l->r, l->key, l->index0 + i, &event), l->r, as);
    mptl_count(stats, u, event);
  }
}

#if MPTL_VEC

/* From this number of bytes on, results are stored past the caches, which could not keep them until
 * they are read. */
#define NONTEMPORAL_BYTES ((size_t)8 << 20)

/* Rounded magnitudes, or codes without sign, with the signs of the patterns u. */
static inline vu with_sign(vu rounded, vu u, const mptl_rounder *r, const output as) {
  if (as == AS_F32) return v_or_and(rounded, u, v_set(MPTL_F32_SIGN));
  return v_or_and(rounded, v_shr(u, 31 - (unsigned)(r->format.e + r->format.m)),
                  v_set(r->code_sign));
}

static inline void store(void *dst, size_t i, vu value, const output as, const bool nontemporal) {
  if (as == AS_F32 && nontemporal) v_store_nontemporal((float *)dst + i, value);
  if (as == AS_F32 && !nontemporal) v_store((float *)dst + i, value);
  if (as == AS_CODE8) v_store8((uint8_t *)dst + i, value);
  if (as == AS_CODE16) v_store16((uint16_t *)dst + i, value);
  if (as == AS_CODE32) v_store((uint32_t *)dst + i, value);
}

/* What a loop counts: in vectors, and for elements that the scalar definition rounds. */
typedef struct counts {
  vec_stats in_vectors;
  mptl_round_stats by_hand;
} counts;

/* Rounds VN elements of any kind from i on. */
static inline __attribute__((always_inline)) void loop_vector(const loop *l, const mptl_rounder *r,
                                                              size_t i, vu word, const output as,
                                                              const mptl_rounding_mode mode,
                                                              const vec_small small,
                                                              const bool nontemporal, counts *c) {
  vu u = v_load(l->src + i), rounded;
  if (!vec_round(&rounded, u, word, r, mode, small, &c->in_vectors)) {
    loop_scalar(l, i, i + VN, as, &c->by_hand);
    return;
  }
  if (as != AS_F32) rounded = vec_encode_magnitude(rounded, r, vec_magic(r));
  store(l->dst, i, with_sign(rounded, u, r, as), as, nontemporal);
}

enum { TOGETHER = 4 }; /* vectors */

static inline void store_codes(void *dst, size_t i, const vu codes[TOGETHER], const output as) {
  if (as == AS_CODE8) {
    v_store((uint8_t *)dst + i, v_pack8(codes[0], codes[1], codes[2], codes[3]));
  } else if (as == AS_CODE16) {
    v_store((uint16_t *)dst + i, v_pack16(codes[0], codes[1]));
    v_store((uint16_t *)dst + i + 2 * VN, v_pack16(codes[2], codes[3]));
  } else {
    for (size_t k = 0; k < TOGETHER; k++) v_store((uint32_t *)dst + i + k * VN, codes[k]);
  }
}

/* Counts magnitudes that round to 0 to nearest even. */
static inline void count_small(vu a, const mptl_rounder *r, vec_stats *stats) {
  stats->underflow = v_count(stats->underflow, v_in(a, r->up_above));
}

/* Rounds TOGETHER vectors from i on to nearest even by a fast method. Returns false, and does
 * nothing, if an element is larger than the largest value. Underflows are looked for among codes
 * only if one is zero. */
static inline __attribute__((always_inline)) bool loop_finite(const loop *l, const mptl_rounder *r,
                                                              size_t i, const output as,
                                                              const vec_small small,
                                                              const bool nontemporal,
                                                              vec_stats *stats) {
  vu u[TOGETHER], a[TOGETHER], codes[TOGETHER], largest = v_set(0);
  for (size_t k = 0; k < TOGETHER; k++) {
    u[k] = v_load(l->src + i + k * VN);
    a[k] = v_and(u[k], v_set(~MPTL_F32_SIGN));
    largest = v_max(largest, a[k]);
  }
  if (v_any(v_gt(largest, v_set(r->max_bits)))) return false;
  stats->max_abs = v_max(stats->max_abs, largest);
  if (as == AS_F32) {
    vu rounded[TOGETHER], smallest = v_set(~MPTL_F32_SIGN);
    for (size_t k = 0; k < TOGETHER; k++) {
      rounded[k] = vec_magnitude_finite(a[k], r, small);
      smallest = v_min(smallest, rounded[k]);
      store(l->dst, i + k * VN, with_sign(rounded[k], u[k], r, as), as, nontemporal);
    }
    if (v_any(v_eq(smallest, v_set(0))))
      for (size_t k = 0; k < TOGETHER; k++) count_small(a[k], r, stats);
    return true;
  }
  for (size_t k = 0; k < TOGETHER; k++) codes[k] = vec_code_finite(a[k], r, small);
  bool zero;
  if (as == AS_CODE8 && r->code_sign == 128) {
    v_store((uint8_t *)l->dst + i, v_pack8_signed(codes, u, &zero));
  } else {
    vu smallest = codes[0];
    for (size_t k = 1; k < TOGETHER; k++) smallest = v_min(smallest, codes[k]);
    zero = v_any(v_eq(smallest, v_set(0)));
    for (size_t k = 0; k < TOGETHER; k++) codes[k] = with_sign(codes[k], u[k], r, as);
    store_codes(l->dst, i, codes, as);
  }
  if (zero)
    for (size_t k = 0; k < TOGETHER; k++) count_small(a[k], r, stats);
  return true;
}

/* Rounds the elements from begin to end, whole vectors. In the stochastic mode index0 + begin must
 * be a multiple of VN. */
static inline __attribute__((always_inline)) void loop_vectors(
    const loop *l, size_t begin, size_t end, const output as, const mptl_rounding_mode mode,
    const vec_small small, const bool nontemporal, mptl_round_stats *stats) {
  const mptl_rounder r = *l->r; /* a copy, so that the compiler keeps fields in registers */
  const bool quick = small == SMALL_LINEAR || small == SMALL_MAGIC;
  counts c = {vec_stats_zero(), {0}};
  uint32_t words[VEC_WORDS] __attribute__((aligned(64)));
  for (size_t i = begin, count; i < end; i += count) {
    size_t first = (l->index0 + i) % VEC_WORDS; /* of words */
    count = end - i;
    if (mode == MPTL_STOCHASTIC) {
      if (count > VEC_WORDS - first) count = VEC_WORDS - first;
      vec_random(words, l->key, l->index0 + i - first);
    }
    for (size_t j = 0; j < count; j += VN) {
      while (quick && j + TOGETHER * VN <= count &&
             loop_finite(l, &r, i + j, as, small, nontemporal, &c.in_vectors))
        j += TOGETHER * VN;
      if (j == count) break;
      loop_vector(l, &r, i + j, mode == MPTL_STOCHASTIC ? v_load(words + first + j) : v_set(0), as,
                  mode, small, nontemporal, &c);
    }
  }
  vec_stats_add(stats, &c.in_vectors, end - begin - c.by_hand.elements);
  mptl_stats_merge(stats, &c.by_hand);
}

#define LOOP(mode, small) loop_vectors(l, begin, end, as, mode, small, nontemporal, stats)

static inline __attribute__((always_inline)) void loop_block(const loop *l, size_t begin,
                                                             size_t end, const output as,
                                                             const bool nontemporal,
                                                             mptl_round_stats *stats) {
  vec_small small = vec_small_for(l->r);
  switch (l->r->mode) {
    case MPTL_NEAREST_EVEN:
      if (small == SMALL_LINEAR) LOOP(MPTL_NEAREST_EVEN, SMALL_LINEAR);
      if (small == SMALL_MAGIC) LOOP(MPTL_NEAREST_EVEN, SMALL_MAGIC);
      if (small == SMALL_BITS) LOOP(MPTL_NEAREST_EVEN, SMALL_BITS);
      break;
    case MPTL_NEAREST_AWAY:
      LOOP(MPTL_NEAREST_AWAY, SMALL_BITS);
      break;
    case MPTL_TOWARD_ZERO:
      LOOP(MPTL_TOWARD_ZERO, SMALL_BITS);
      break;
    case MPTL_UP:
      LOOP(MPTL_UP, SMALL_BITS);
      break;
    case MPTL_DOWN:
      LOOP(MPTL_DOWN, SMALL_BITS);
      break;
    case MPTL_STOCHASTIC:
      if (small == SMALL_SCALE)
        LOOP(MPTL_STOCHASTIC, SMALL_SCALE);
      else
        LOOP(MPTL_STOCHASTIC, SMALL_BITS);
      break;
  }
}

static void block_f32(const loop *l, size_t begin, size_t end, bool nontemporal,
                      mptl_round_stats *stats) {
  if (nontemporal) {
    loop_block(l, begin, end, AS_F32, true, stats);
    _mm_sfence();
  } else {
    loop_block(l, begin, end, AS_F32, false, stats);
  }
}

static void block_code8(const loop *l, size_t begin, size_t end, mptl_round_stats *stats) {
  loop_block(l, begin, end, AS_CODE8, false, stats);
}

static void block_code16(const loop *l, size_t begin, size_t end, mptl_round_stats *stats) {
  loop_block(l, begin, end, AS_CODE16, false, stats);
}

static void block_code32(const loop *l, size_t begin, size_t end, mptl_round_stats *stats) {
  loop_block(l, begin, end, AS_CODE32, false, stats);
}

static void run_block(const loop *l, size_t begin, size_t end, const output as, bool nontemporal,
                      mptl_round_stats *stats) {
  if (as == AS_F32) block_f32(l, begin, end, nontemporal, stats);
  if (as == AS_CODE8) block_code8(l, begin, end, stats);
  if (as == AS_CODE16) block_code16(l, begin, end, stats);
  if (as == AS_CODE32) block_code32(l, begin, end, stats);
}

static inline size_t output_size(const output as) {
  return as == AS_CODE8 ? 1 : as == AS_CODE16 ? 2 : 4;
}

/* Rounds count elements from begin on, fewer than a vector: as a vector that is filled up with
 * zeros, which are not counted. */
static void run_rest(const loop *l, size_t begin, size_t count, const output as,
                     mptl_round_stats *stats) {
  float src[VN] = {0};
  uint32_t dst[VN];
  loop rest = {dst, src, l->r, l->key, l->index0 + begin};
  memcpy(src, l->src + begin, count * sizeof *src);
  run_block(&rest, 0, VN, as, false, stats);
  stats->elements -= VN - count;
  memcpy((char *)l->dst + begin * output_size(as), dst, count * output_size(as));
}

static void run(const loop *l, size_t n, const output as, mptl_round_stats *stats) {
  size_t begin = 0, end = 0;
  if (l->r->is_regular) {
    bool nontemporal =
        as == AS_F32 && n * sizeof(float) >= NONTEMPORAL_BYTES && l->dst != (const void *)l->src;
    if (l->r->mode == MPTL_STOCHASTIC)
      begin = (VN - l->index0 % VN) % VN;
    else if (nontemporal)
      begin = (64 - (uintptr_t)l->dst % 64) % 64 / sizeof(float);
    if (begin > n) begin = n;
    end = begin + (n - begin) / VN * VN;
    nontemporal = nontemporal && (uintptr_t)((float *)l->dst + begin) % (VN * sizeof(float)) == 0;
    loop_scalar(l, 0, begin, as, stats);
    run_block(l, begin, end, as, nontemporal, stats);
    if (end < n && l->r->mode != MPTL_STOCHASTIC) {
      run_rest(l, end, n - end, as, stats);
      return;
    }
  }
  loop_scalar(l, end, n, as, stats);
}

#else

static void run(const loop *l, size_t n, const output as, mptl_round_stats *stats) {
  loop_scalar(l, 0, n, as, stats);
}

#endif

void MPTL_CPU(round_f32)(float *dst, const float *src, size_t n, const mptl_rounder *r,
                         mptl_key key, uint64_t index0, mptl_round_stats *stats) {
  loop l = {dst, src, r, key, index0};
  run(&l, n, AS_F32, stats);
}

void MPTL_CPU(encode_f32)(void *codes, const float *src, size_t n, const mptl_rounder *r,
                          mptl_key key, uint64_t index0, mptl_round_stats *stats) {
  loop l = {codes, src, r, key, index0};
  size_t size = mptl_code_size(r->format);
  run(&l, n, size == 1 ? AS_CODE8 : size == 2 ? AS_CODE16 : AS_CODE32, stats);
}

float MPTL_CPU(max_abs_f32)(const float *x, size_t n) {
  uint32_t max = 0;
  size_t i = 0;
#if MPTL_VEC
  vu largest = v_set(0), inf = v_set(MPTL_F32_INF);
  for (; i + VN <= n; i += VN) {
    vu a = v_and(v_load(x + i), v_set(~MPTL_F32_SIGN));
    largest = v_max(largest, v_keep(v_gt(inf, a), a));
  }
  max = vec_largest(largest);
#endif
  for (; i < n; i++) {
    uint32_t a = mptl_f32_bits(x[i]) & ~MPTL_F32_SIGN;
    max = a < MPTL_F32_INF && a > max ? a : max;
  }
  return mptl_bits_f32(max);
}

/* Rounding and encoding of arrays: whole vectors by vector code, the rest by the scalar
 * definition. */
#include "kernels/cpu/table.h"
#include "kernels/cpu/vec_round.h"
#include "mptl/round.h"

/* What a loop writes for each element. */
typedef enum output { AS_F32, AS_CODE8, AS_CODE16, AS_CODE32 } output;

/* One loop over an array. It holds a copy of the rounder, so that the compiler can keep its fields
 * in registers. */
typedef struct loop {
  void *dst;
  const float *src;
  mptl_rounder r;
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
    put(l->dst, i, mptl_round_bits(u, &l->r, l->key, l->index0 + i, &event), &l->r, as);
    mptl_count(stats, u, event);
  }
}

#if MPTL_VEC

/* From this number of bytes on, results are stored past the caches, which could not keep them until
 * they are read. */
#define NONTEMPORAL_BYTES ((size_t)8 << 20)

/* Stores rounded magnitudes, or codes without sign, with the signs of the patterns u. */
static inline void put_vec(void *dst, size_t i, vu rounded, vu u, const mptl_rounder *r,
                           const output as, const bool nontemporal) {
  vu value = v_or(rounded, as == AS_F32 ? v_and(u, v_set(MPTL_F32_SIGN)) : vec_code_sign(u, r));
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
static inline __attribute__((always_inline)) void loop_vector(const loop *l, size_t i, vu word,
                                                              const output as,
                                                              const mptl_rounding_mode mode,
                                                              const vec_small small,
                                                              const bool nontemporal, counts *c) {
  vu u = v_load(l->src + i), rounded;
  if (!vec_round(&rounded, u, word, &l->r, mode, small, &c->in_vectors)) {
    loop_scalar(l, i, i + VN, as, &c->by_hand);
    return;
  }
  if (as != AS_F32) rounded = vec_encode_magnitude(rounded, &l->r, vec_magic(&l->r));
  put_vec(l->dst, i, rounded, u, &l->r, as, nontemporal);
}

enum { TOGETHER = 4 }; /* vectors */

/* Rounds TOGETHER vectors from i on to nearest even by a fast method. Returns false, and does
 * nothing, if an element is larger than the largest value. */
static inline __attribute__((always_inline)) bool loop_finite(const loop *l, size_t i,
                                                              const output as,
                                                              const vec_small small,
                                                              const bool nontemporal,
                                                              vec_stats *stats) {
  vu u[TOGETHER], a[TOGETHER], largest = v_set(0);
  for (size_t k = 0; k < TOGETHER; k++) {
    u[k] = v_load(l->src + i + k * VN);
    a[k] = v_and(u[k], v_set(~MPTL_F32_SIGN));
    largest = v_max(largest, a[k]);
  }
  if (v_any(v_gt(largest, v_set(l->r.max_bits)))) return false;
  stats->max_abs = v_max(stats->max_abs, largest);
  for (size_t k = 0; k < TOGETHER; k++) {
    vu rounded = as == AS_F32 ? vec_magnitude_finite(a[k], &l->r, small)
                              : vec_code_finite(a[k], &l->r, small);
    vec_count_underflow(a[k], rounded, stats);
    put_vec(l->dst, i + k * VN, rounded, u[k], &l->r, as, nontemporal);
  }
  return true;
}

/* Rounds the elements from begin to end, whole vectors. In the stochastic mode index0 + begin must
 * be a multiple of VN. */
static inline __attribute__((always_inline)) void loop_vectors(
    const loop *given, size_t begin, size_t end, const output as, const mptl_rounding_mode mode,
    const vec_small small, const bool nontemporal, mptl_round_stats *stats) {
  const loop l = *given;
  const bool quick = small == SMALL_LINEAR || small == SMALL_MAGIC;
  counts c = {vec_stats_zero(), {0}};
  uint32_t words[VEC_WORDS] __attribute__((aligned(64)));
  for (size_t i = begin, count; i < end; i += count) {
    size_t first = (l.index0 + i) % VEC_WORDS; /* of words */
    count = end - i;
    if (mode == MPTL_STOCHASTIC) {
      if (count > VEC_WORDS - first) count = VEC_WORDS - first;
      vec_random(words, l.key, l.index0 + i - first);
    }
    for (size_t j = 0; j < count; j += VN) {
      while (quick && j + TOGETHER * VN <= count &&
             loop_finite(&l, i + j, as, small, nontemporal, &c.in_vectors))
        j += TOGETHER * VN;
      if (j == count) break;
      loop_vector(&l, i + j, mode == MPTL_STOCHASTIC ? v_load(words + first + j) : v_set(0), as,
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
  vec_small small = vec_small_for(&l->r);
  switch (l->r.mode) {
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
  if (l->r.is_regular) {
    bool nontemporal =
        as == AS_F32 && n * sizeof(float) >= NONTEMPORAL_BYTES && l->dst != (const void *)l->src;
    if (l->r.mode == MPTL_STOCHASTIC)
      begin = (VN - l->index0 % VN) % VN;
    else if (nontemporal)
      begin = (64 - (uintptr_t)l->dst % 64) % 64 / sizeof(float);
    if (begin > n) begin = n;
    end = begin + (n - begin) / VN * VN;
    nontemporal = nontemporal && (uintptr_t)((float *)l->dst + begin) % (VN * sizeof(float)) == 0;
    loop_scalar(l, 0, begin, as, stats);
    run_block(l, begin, end, as, nontemporal, stats);
    if (end < n && l->r.mode != MPTL_STOCHASTIC) {
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
  loop l = {dst, src, *r, key, index0};
  run(&l, n, AS_F32, stats);
}

void MPTL_CPU(encode_f32)(void *codes, const float *src, size_t n, const mptl_rounder *r,
                          mptl_key key, uint64_t index0, mptl_round_stats *stats) {
  loop l = {codes, src, *r, key, index0};
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

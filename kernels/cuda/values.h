/* What the kernels share: values in memory, in whatever storage, eight elements a thread and turn; rounding them, with counts.
 *
 * Rounding is kernels/round.h's, compiled for the device. To nearest even in the usual formats there is a quicker way, and so there is
 * for encoding and decoding; specs hold them to the definition bit for bit.
 */
#ifndef MPTL_KERNELS_CUDA_VALUES_H
#define MPTL_KERNELS_CUDA_VALUES_H

#include "kernels/cuda/compat.h"
#include "kernels/cuda/kernels.h"

#define MPTL_DEVICE static __device__ __forceinline__

enum { MPTL_WIDE = 8 };      /* elements of a vector */
enum { MPTL_THREADS = 256 }; /* of a block, in all kernels */
enum { MPTL_WARPS = MPTL_THREADS / 32 };

/* ---- Operands as kernels get them ---- */

/* How a value is in memory. MPTL_AS_CONSTANT: one value for all elements, in grid.constant. */
enum mptl_storage { MPTL_AS_NOTHING, MPTL_AS_CODE8, MPTL_AS_CODE16, MPTL_AS_CODE32, MPTL_AS_BF16, MPTL_AS_F32, MPTL_AS_CONSTANT };

/* What to do to round. Of magnitudes up to the largest value, which the other ways leave to the definition:
 *   MPTL_ROUND_KEEP   the values are on the grid already
 *   MPTL_ROUND_EVEN   to nearest even, by adding a power of two that depends on the exponent
 *   MPTL_ROUND_CARRY  to nearest even, by adding to the pattern: formats whose exponents leave no room for such a power */
enum mptl_way { MPTL_ROUND_NOT, MPTL_ROUND_KEEP, MPTL_ROUND_EVEN, MPTL_ROUND_CARRY, MPTL_ROUND_BITS };

/* A rounder without its table, small enough for a kernel's parameters, and what the quick ways need. */
typedef struct mptl_grid {
  int32_t emin, m;
  uint32_t max_bits, min_bits, over_bits, code_sign, max_code, inf_code, nan_code;
  uint32_t small_below;          /* magnitudes below it are rounded by magic; 0: none */
  float magic;                   /* 2^(emin-m+23): adding it leaves no digits below the format's last place */
  float scale;                   /* 2^(emin+126): codes moved to binary32's place, times this, are values */
  float inverse_scale;           /* 1 / scale; 0: it has none */
  uint32_t first_exponent, lift; /* MPTL_ROUND_EVEN adds max(a magnitude's exponent, first_exponent) + lift, as a number */
  uint32_t tie;                  /* MPTL_ROUND_EVEN: magnitudes up to this one become 0 */
  uint32_t magnitudes, past_max,
      signs; /* of all codes of a word: what is added to magnitudes sets signs where they are past max_code */
  uint8_t mode, way, sign_shift;
  uint8_t has_infinity, has_nan, quick_encode, quick_decode;
} mptl_grid;

typedef struct mptl_source_arg {
  const char *data;
  mptl_grid grid;
  uint8_t as, align; /* an mptl_storage; bytes that addresses of vectors are multiples of, up to 16 */
  float constant;
} mptl_source_arg;

typedef struct mptl_sink_arg {
  char *data;
  mptl_grid grid;
  uint8_t as, align, accumulate;
  mptl_key key;
  uint64_t index0;
  mptl_round_stats *stats;
  mptl_exponents *exponents;
} mptl_sink_arg;

/* ---- Making them, on the host ---- */

static inline float mptl_power_of_two(int exponent) { return mptl_bits_f32((uint32_t)(exponent + 127) << 23); } /* normal ones */

static inline size_t mptl_bytes_of_codes(const mptl_rounder *r) {
  int bits = 1 + r->format.e + r->format.m;
  return bits <= 8 ? 1 : bits <= 16 ? 2 : 4;
}

/* The grid of a rounder; of NULL: binary32, not rounded. */
static inline mptl_grid mptl_grid_of(const mptl_rounder *r) {
  mptl_grid g;
  memset(&g, 0, sizeof g);
  g.way = MPTL_ROUND_NOT;
  if (r == NULL) return g;
  g.emin = r->emin, g.m = r->m, g.mode = (uint8_t)r->mode;
  g.max_bits = r->max_bits, g.min_bits = r->min_bits, g.over_bits = r->over_bits;
  g.code_sign = r->code_sign, g.max_code = r->max_code, g.inf_code = r->inf_code, g.nan_code = r->nan_code;
  g.has_infinity = r->has_infinity, g.has_nan = r->has_nan;
  g.sign_shift = (uint8_t)(31 - r->format.e - r->format.m);
  int smallest = r->emin - r->m; /* exponent of the smallest value */
  bool linear = r->emin == -126, magic = smallest > -126 && smallest + 23 <= 127;
  g.small_below = linear ? 0 : (uint32_t)(r->emin + 127) << 23;
  g.magic = magic ? mptl_power_of_two(smallest + 23) : 0.0f;
  g.quick_encode = linear || magic;
  g.quick_decode = r->is_regular && r->emin <= 1;
  g.scale = g.quick_decode ? mptl_power_of_two(r->emin + 126) : 0.0f;
  g.inverse_scale = g.quick_decode && r->emin <= 0 ? mptl_power_of_two(-126 - r->emin) : 0.0f;
  bool even = r->mode == MPTL_NEAREST_EVEN && r->m > 0 && (linear || magic);
  int largest = (int)(r->max_bits >> 23) - 127; /* exponent of the largest value */
  bool by_exponent = r->m <= 22 && r->emin >= -126 && largest + 23 - r->m <= 127 && smallest + 23 <= 127;
  if (even && by_exponent) {
    g.first_exponent = (uint32_t)(r->emin + 127) << 23;
    g.lift = (uint32_t)(23 - r->m) << 23;
    g.tie = smallest - 1 >= -126 ? (uint32_t)(smallest - 1 + 127) << 23 : smallest - 1 >= -149 ? 1u << (smallest - 1 + 149) : 0;
  }
  uint32_t each = r->code_sign < 0x100 ? 0x01010101u : r->code_sign < 0x10000 ? 0x00010001u : 1u; /* 1 in each code of a word */
  g.magnitudes = (r->code_sign - 1) * each;
  g.past_max = (r->code_sign - 1 - r->max_code) * each;
  g.signs = r->code_sign * each;
  g.way = r->is_identity ? MPTL_ROUND_NOT : !even ? MPTL_ROUND_BITS : by_exponent ? MPTL_ROUND_EVEN : MPTL_ROUND_CARRY;
  return g;
}

/* Whether all finite values of grid a are values of grid b: they are the same. */
static inline bool mptl_same_grid(const mptl_grid *a, const mptl_grid *b) {
  return a->way != MPTL_ROUND_NOT && b->way != MPTL_ROUND_NOT && a->emin == b->emin && a->m == b->m && a->max_bits == b->max_bits;
}

static inline uint8_t mptl_storage_of(size_t size) {
  return size == 1 ? MPTL_AS_CODE8 : size == 2 ? MPTL_AS_CODE16 : size == 4 ? MPTL_AS_F32 : MPTL_AS_NOTHING;
}

/* Largest power of two up to 16 that divides an address and the distance of vectors' groups, in bytes (0: they follow each other). */
static inline uint8_t mptl_align_of(const void *p, size_t pitch) {
  uintptr_t bits = (uintptr_t)p | pitch | 16;
  return (uint8_t)(bits & (~bits + 1));
}

/* pitch: elements from one row of vectors to the next; 0: the array is one row. */
static inline mptl_source_arg mptl_source_of(const mptl_cuda_source *s, size_t pitch) {
  mptl_source_arg a;
  memset(&a, 0, sizeof a);
  a.data = (const char *)s->data;
  a.grid = mptl_grid_of(s->rounder);
  a.as = mptl_storage_of(s->size);
  a.align = mptl_align_of(s->data, pitch * s->size);
  return a;
}

static inline mptl_source_arg mptl_source_of_floats(const float *x) {
  mptl_cuda_source s = {x, sizeof(float), NULL};
  return mptl_source_of(&s, 0);
}

static inline mptl_sink_arg mptl_sink_of(const mptl_cuda_sink *s, size_t pitch) {
  mptl_sink_arg a;
  memset(&a, 0, sizeof a);
  a.data = (char *)s->data;
  a.grid = mptl_grid_of(s->rounder);
  a.as = s->data == NULL ? (uint8_t)MPTL_AS_NOTHING : s->accumulate ? (uint8_t)MPTL_AS_F32 : mptl_storage_of(s->size);
  a.align = mptl_align_of(s->data, pitch * (s->accumulate ? sizeof(float) : s->size));
  a.accumulate = s->accumulate;
  a.key = s->key;
  a.index0 = s->index0;
  a.stats = s->stats;
  a.exponents = s->exponents;
  return a;
}

static inline bool mptl_is_plain(const mptl_source_arg *s) {
  if (s->as == MPTL_AS_CODE8 || s->as == MPTL_AS_CODE16)
    return s->grid.quick_decode && s->align >= (s->as == MPTL_AS_CODE8 ? 8 : 16);
  return s->as == MPTL_AS_CONSTANT || (s->as == MPTL_AS_F32 && s->align >= 16);
}

static inline bool mptl_is_plain(const mptl_sink_arg *s) {
  if (s->exponents != NULL || s->grid.way > MPTL_ROUND_EVEN) return false;
  if (s->as == MPTL_AS_CODE8 || s->as == MPTL_AS_CODE16)
    return s->grid.inverse_scale != 0.0f && s->align >= (s->as == MPTL_AS_CODE8 ? 8 : 16);
  return s->as == MPTL_AS_NOTHING || ((s->as == MPTL_AS_F32 || s->as == MPTL_AS_BF16) && s->align >= 16);
}

static inline uint8_t mptl_storage_for(mptl_cuda_cast_type type) {
  return type == MPTL_CUDA_CAST_CODE8 ? MPTL_AS_CODE8 : type == MPTL_CUDA_CAST_BF16 ? MPTL_AS_BF16 : MPTL_AS_F32;
}

/* A sink that rounds as the array functions do: binary32 is looked at, too. */
static inline mptl_sink_arg mptl_array_sink(void *dst, size_t size, const mptl_rounder *rounder, mptl_key key, uint64_t index0,
                                            mptl_round_stats *stats) {
  mptl_cuda_sink s;
  memset(&s, 0, sizeof s);
  s.data = dst, s.size = size, s.rounder = rounder, s.key = key, s.index0 = index0, s.stats = stats;
  mptl_sink_arg sink = mptl_sink_of(&s, 0);
  if (rounder != NULL && rounder->is_identity) sink.grid.way = MPTL_ROUND_BITS;
  return sink;
}

/* Blocks for so many pieces of work: each takes several where there are more than fill the device. */
static inline unsigned mptl_blocks_of(size_t pieces) {
  size_t most = (size_t)mptl_multiprocessors() * 8;
  return (unsigned)(pieces < most ? pieces : most);
}

/* The same for work of so many threads. */
static inline unsigned mptl_blocks(size_t threads) { return mptl_blocks_of((threads + MPTL_THREADS - 1) / MPTL_THREADS); }

static inline __host__ __device__ size_t mptl_vectors(size_t n) { return (n + MPTL_WIDE - 1) / MPTL_WIDE; }

/* ---- Going over an array ---- */

/* Elements where this thread's warp begins, and how far on its next turn is. All lanes of a warp take as many turns, so that they may
 * work together; the last ones may find nothing left. */
MPTL_DEVICE size_t mptl_warp_begin(void) { return ((size_t)blockIdx.x * MPTL_THREADS + (threadIdx.x & ~31u)) * MPTL_WIDE; }
MPTL_DEVICE size_t mptl_warp_step(void) { return (size_t)gridDim.x * MPTL_THREADS * MPTL_WIDE; }
MPTL_DEVICE unsigned mptl_lane(void) { return threadIdx.x & 31u; }

/* Of n elements, those from i on that a vector has. */
MPTL_DEVICE unsigned mptl_count_at(size_t i, size_t n) {
  size_t left = i >= n ? 0 : n - i;
  return left < MPTL_WIDE ? (unsigned)left : (unsigned)MPTL_WIDE;
}

/* ---- Memory ---- */

/* Reads 4 * WORDS bytes in accesses as wide as align allows. */
template <int WORDS>
MPTL_DEVICE void mptl_read_words(uint32_t *words, const char *p, unsigned align) {
  if (WORDS % 4 == 0 && align >= 16) {
#pragma unroll
    for (int w = 0; w + 3 < WORDS; w += 4) {
      uint4 v = mptl_load<uint4>(p + 4 * w);
      words[w] = v.x, words[w + 1] = v.y, words[w + 2] = v.z, words[w + 3] = v.w;
    }
  } else if (align >= 8) {
#pragma unroll
    for (int w = 0; w + 1 < WORDS; w += 2) {
      uint2 v = mptl_load<uint2>(p + 4 * w);
      words[w] = v.x, words[w + 1] = v.y;
    }
  } else if (align >= 4) {
#pragma unroll
    for (int w = 0; w < WORDS; w++) words[w] = mptl_load<uint32_t>(p + 4 * w);
  } else if (align >= 2) {
#pragma unroll
    for (int w = 0; w < WORDS; w++)
      words[w] = mptl_load<uint16_t>(p + 4 * w) | (uint32_t)mptl_load<uint16_t>(p + 4 * w + 2) << 16;
  } else {
#pragma unroll
    for (int w = 0; w < WORDS; w++)
      words[w] = (uint32_t)(uint8_t)p[4 * w] | (uint32_t)(uint8_t)p[4 * w + 1] << 8 | (uint32_t)(uint8_t)p[4 * w + 2] << 16 |
                 (uint32_t)(uint8_t)p[4 * w + 3] << 24;
  }
}

template <int WORDS>
MPTL_DEVICE void mptl_write_words(char *p, const uint32_t *words, unsigned align) {
  if (WORDS % 4 == 0 && align >= 16) {
#pragma unroll
    for (int w = 0; w + 3 < WORDS; w += 4) mptl_store(p + 4 * w, make_uint4(words[w], words[w + 1], words[w + 2], words[w + 3]));
  } else if (align >= 8) {
#pragma unroll
    for (int w = 0; w + 1 < WORDS; w += 2) mptl_store(p + 4 * w, make_uint2(words[w], words[w + 1]));
  } else if (align >= 4) {
#pragma unroll
    for (int w = 0; w < WORDS; w++) mptl_store(p + 4 * w, words[w]);
  } else if (align >= 2) {
#pragma unroll
    for (int w = 0; w < WORDS; w++) {
      mptl_store(p + 4 * w, (uint16_t)words[w]);
      mptl_store(p + 4 * w + 2, (uint16_t)(words[w] >> 16));
    }
  } else {
#pragma unroll
    for (int b = 0; b < 4 * WORDS; b++) p[b] = (char)(words[b / 4] >> b % 4 * 8);
  }
}

/* n floats, at most MPTL_WIDE; the rest of x is 0. */
MPTL_DEVICE void mptl_read_floats(float *x, const float *from, unsigned n, unsigned align) {
  uint32_t words[MPTL_WIDE] = {0};
  if (n == MPTL_WIDE) {
    mptl_read_words<MPTL_WIDE>(words, (const char *)from, align);
  } else {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n) words[k] = __float_as_uint(from[k]);
  }
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) x[k] = __uint_as_float(words[k]);
}

/* ---- Codes ---- */

/* The rounder again, without its table: what kernels/round.h reads of it. */
MPTL_DEVICE mptl_rounder mptl_rounder_of(const mptl_grid &g) {
  mptl_rounder r;
  r.mode = (mptl_rounding_mode)g.mode;
  r.emin = g.emin, r.m = g.m;
  r.max_bits = g.max_bits, r.min_bits = g.min_bits, r.over_bits = g.over_bits;
  r.code_sign = g.code_sign, r.max_code = g.max_code, r.inf_code = g.inf_code, r.nan_code = g.nan_code;
  r.has_infinity = g.has_infinity, r.has_nan = g.has_nan;
  return r;
}

/* The definition, in functions that are called: inlined for every element of a vector they would be most of a kernel. */
static __device__ MPTL_NOINLINE uint32_t mptl_decode_slowly(uint32_t code, const mptl_grid *g) {
  mptl_rounder r = mptl_rounder_of(*g);
  return mptl_decode_code(code, &r);
}

static __device__ MPTL_NOINLINE uint32_t mptl_encode_slowly(uint32_t u, const mptl_grid *g) {
  mptl_rounder r = mptl_rounder_of(*g);
  return mptl_encode_bits(u, &r);
}

/* The event is in the upper half of what comes back. */
static __device__ MPTL_NOINLINE uint64_t mptl_round_slowly(uint32_t u, const mptl_grid *g, uint32_t word, mptl_key key,
                                                           uint64_t index) {
  uint32_t event;
  mptl_rounder r = mptl_rounder_of(*g);
  uint32_t rounded = mptl_round_bits_word(u, &r, word, key, index, &event);
  return (uint64_t)event << 32 | rounded;
}

/* As mptl_decode_code. */
MPTL_DEVICE uint32_t mptl_decode(uint32_t code, const mptl_grid &g) {
  uint32_t magnitude = code & (g.code_sign - 1);
  if (g.quick_decode && magnitude <= g.max_code)
    return __float_as_uint(__uint_as_float(magnitude << (23 - g.m)) * g.scale) | (code & g.code_sign) << g.sign_shift;
  return mptl_decode_slowly(code, &g);
}

/* As mptl_encode_bits. */
MPTL_DEVICE uint32_t mptl_encode(uint32_t u, const mptl_grid &g) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  if (g.quick_encode && a <= g.max_bits) {
    uint32_t code = (a >> (23 - g.m)) - ((uint32_t)(g.emin + 126) << g.m);
    if (a < g.small_below) code = __float_as_uint(__uint_as_float(a) + g.magic) - __float_as_uint(g.magic);
    return code | (u & MPTL_F32_SIGN) >> g.sign_shift;
  }
  return mptl_encode_slowly(u, &g);
}

/* Kernels have a PLAIN form beside the general one, for what is usual and has to be fast. It takes whole vectors in aligned places, codes of
 * one or two bytes of formats that are decoded and encoded quickly, rounding to nearest even (MPTL_ROUND_KEEP, MPTL_ROUND_EVEN, or none),
 * and no counting of exponents: mptl_is_plain says of an operand whether that is so. */

/* A vector of codes, EACH of them in a word. */
template <bool PLAIN, int EACH>
MPTL_DEVICE void mptl_decode_wide(float *x, const uint32_t *words, const mptl_grid &g) {
  uint32_t special = !PLAIN && !g.quick_decode;
#pragma unroll
  for (int w = 0; w < MPTL_WIDE / EACH; w++) special |= ((words[w] & g.magnitudes) + g.past_max) & g.signs;
  if (special == 0) {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) {
      uint32_t code = words[k / EACH] >> k % EACH * (32 / EACH);
      uint32_t a = __float_as_uint(__uint_as_float((code & (g.code_sign - 1)) << (23 - g.m)) * g.scale);
      x[k] = __uint_as_float(a | (code & g.code_sign) << g.sign_shift);
    }
    return;
  }
  float slow[MPTL_WIDE];
  uint32_t again[MPTL_WIDE / EACH]; /* so that only this one is in memory */
#pragma unroll
  for (int w = 0; w < MPTL_WIDE / EACH; w++) again[w] = words[w];
#pragma unroll 1
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t code = again[k / EACH] >> k % EACH * (32 / EACH) & ((g.code_sign << 1) - 1);
    mptl_rounder r = mptl_rounder_of(g);
    slow[k] = __uint_as_float(mptl_decode_code(code, &r));
  }
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) x[k] = slow[k];
}

/* The largest magnitude of a vector, as a pattern. */
MPTL_DEVICE uint32_t mptl_largest_of(const float *x) {
  uint32_t largest = 0;
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t a = __float_as_uint(x[k]) & ~MPTL_F32_SIGN;
    largest = a > largest ? a : largest;
  }
  return largest;
}

/* A vector of values of a grid to codes, EACH of them in a word. within: no magnitude is beyond the largest value. */
template <bool PLAIN, int EACH>
MPTL_DEVICE void mptl_encode_wide(uint32_t *words, const float *x, const mptl_grid &g, bool within) {
#pragma unroll
  for (int w = 0; w < MPTL_WIDE / EACH; w++) words[w] = 0;
  if ((PLAIN || g.inverse_scale != 0.0f) && (within || mptl_largest_of(x) <= g.max_bits)) {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) {
      uint32_t u = __float_as_uint(x[k] * g.inverse_scale);
      uint32_t code = (u & ~MPTL_F32_SIGN) >> (23 - g.m) | (u >> g.sign_shift & g.code_sign);
      words[k / EACH] |= code << k % EACH * (32 / EACH);
    }
    return;
  }
  float slow[MPTL_WIDE];
  uint32_t codes[MPTL_WIDE];
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) slow[k] = x[k];
#pragma unroll 1
  for (int k = 0; k < MPTL_WIDE; k++) {
    mptl_rounder r = mptl_rounder_of(g);
    codes[k] = mptl_encode_bits(__float_as_uint(slow[k]), &r);
  }
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) words[k / EACH] |= codes[k] << k % EACH * (32 / EACH);
}

/* ---- Reading ---- */

MPTL_DEVICE float mptl_read_one(const mptl_source_arg &s, size_t i) {
  switch (s.as) {
    case MPTL_AS_CODE8:
      return __uint_as_float(mptl_decode(((const uint8_t *)s.data)[i], s.grid));
    case MPTL_AS_CODE16:
      return __uint_as_float(mptl_decode(mptl_load<uint16_t>(s.data + 2 * i), s.grid));
    case MPTL_AS_CODE32:
      return __uint_as_float(mptl_decode(mptl_load<uint32_t>(s.data + 4 * i), s.grid));
    case MPTL_AS_F32:
      return mptl_load<float>(s.data + 4 * i);
    default:
      return s.constant;
  }
}

/* Elements [i, i + n) of a value, n <= MPTL_WIDE; the rest of x is 0. */
template <bool PLAIN = false>
MPTL_DEVICE void mptl_read_wide(float *x, const mptl_source_arg &s, size_t i, unsigned n) {
  const unsigned align = PLAIN ? 16 : s.align;
  if (!PLAIN && n < MPTL_WIDE) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++) x[k] = k < n ? mptl_read_one(s, i + k) : 0.0f;
  } else if (s.as == MPTL_AS_CODE8) {
    uint32_t words[2];
    mptl_read_words<2>(words, s.data + i, align);
    mptl_decode_wide<PLAIN, 4>(x, words, s.grid);
  } else if (s.as == MPTL_AS_CODE16) {
    uint32_t words[4];
    mptl_read_words<4>(words, s.data + 2 * i, align);
    mptl_decode_wide<PLAIN, 2>(x, words, s.grid);
  } else if (s.as == MPTL_AS_F32) {
    uint32_t words[8];
    mptl_read_words<8>(words, s.data + 4 * i, align);
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) x[k] = __uint_as_float(words[k]);
  } else if (!PLAIN && s.as == MPTL_AS_CODE32) {
    uint32_t words[8];
    mptl_read_words<8>(words, s.data + 4 * i, align);
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) x[k] = __uint_as_float(mptl_decode(words[k], s.grid));
  } else {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) x[k] = s.constant;
  }
}

/* ---- Random bits ---- */

/* Swaps what makes element j of v[4] that of j ^ q. */
MPTL_DEVICE void mptl_exchange(uint32_t *v, unsigned q) {
  uint32_t a = q & 1 ? v[1] : v[0], b = q & 1 ? v[0] : v[1], c = q & 1 ? v[3] : v[2], d = q & 1 ? v[2] : v[3];
  v[0] = q & 2 ? c : a, v[1] = q & 2 ? d : b, v[2] = q & 2 ? a : c, v[3] = q & 2 ? b : d;
}

/* words[k] = mptl_random_u32(key, index + k, 0), where index is the lane's: vectors of a warp follow each other, and all its lanes call.
 *
 * Eight lanes have 64 elements, which are the four words of 16 counters; of the eight lanes the four even ones need the same eight
 * counters, each another word, and so do the odd ones. So each draws two counters and they exchange. */
MPTL_DEVICE void mptl_random_wide(uint32_t *words, mptl_key key, uint64_t index) {
  uint64_t first = index - (uint64_t)mptl_lane() * MPTL_WIDE; /* of the warp: the same in all lanes */
  if (first % 64 != 0) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++) words[k] = mptl_random_u32(key, index + k, 0);
    return;
  }
  unsigned q = mptl_lane() / 2 % 4;
  uint64_t counter = index / 64 * 16 + index % 16 + 2 * q; /* index % 16 is 0 or 8 */
#pragma unroll
  for (unsigned c = 0; c < 2; c++) {
    uint32_t v[4], got[4];
    mptl_philox(v, key, counter + c, 0);
    mptl_exchange(v, q); /* v[s] is for the lane q ^ s, which needs word q ^ s */
#pragma unroll
    for (unsigned s = 0; s < 4; s++) got[s] = __shfl_xor_sync(0xffffffffu, v[s], s << 1); /* counter 2 (q ^ s) + c, word q */
    mptl_exchange(got, q);
#pragma unroll
    for (unsigned p = 0; p < 4; p++) words[2 * p + c] = got[p];
  }
}

/* ---- Rounding ---- */

/* What a thread has counted for a sink; max is a magnitude's pattern. */
typedef struct mptl_counts {
  uint32_t underflow, overflow, inf_in, nan_in, max;
} mptl_counts;

MPTL_DEVICE mptl_counts mptl_no_counts(void) {
  mptl_counts c = {0, 0, 0, 0, 0};
  return c;
}

/* u's event is counted. */
MPTL_DEVICE void mptl_count_event(mptl_counts *counts, uint32_t u, uint32_t event) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  counts->underflow += event == MPTL_EVENT_UNDERFLOW;
  counts->overflow += event == MPTL_EVENT_OVERFLOW;
  counts->inf_in += event == MPTL_EVENT_INF;
  counts->nan_in += event == MPTL_EVENT_NAN;
  if (a < MPTL_F32_INF && a > counts->max) counts->max = a;
}

MPTL_DEVICE uint32_t mptl_round_one(uint32_t u, const mptl_grid &g, uint32_t word, mptl_key key, uint64_t index,
                                    mptl_counts *counts) {
  uint64_t both = mptl_round_slowly(u, &g, word, key, index);
  mptl_count_event(counts, u, (uint32_t)(both >> 32));
  return (uint32_t)both;
}

/* To nearest even, of magnitudes up to the largest value, in both ways; counted. */
MPTL_DEVICE uint32_t mptl_round_even(uint32_t a, const mptl_grid &g, mptl_counts *counts) {
  uint32_t drop = 23 - (uint32_t)g.m, mask = (1u << drop) - 1;
  uint32_t even = (a + (mask >> 1) + (mask ? a >> drop & 1 : 0)) & ~mask;
  uint32_t small = __float_as_uint((__uint_as_float(a) + g.magic) - g.magic), rounded = a < g.small_below ? small : even;
  counts->underflow += rounded == 0 && a != 0;
  counts->max = a > counts->max ? a : counts->max;
  return rounded;
}

/* A vector of magnitudes up to the largest value, by an exponent's power of two: the sum's last place is the format's. */
MPTL_DEVICE void mptl_round_even_wide(float *x, const mptl_grid &g, mptl_counts *counts) {
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t u = __float_as_uint(x[k]), a = u & ~MPTL_F32_SIGN, exponent = a & MPTL_F32_INF;
    float power = __uint_as_float((exponent > g.first_exponent ? exponent : g.first_exponent) + g.lift);
    counts->underflow += a - 1 < g.tie;
    x[k] = __uint_as_float(__float_as_uint((__uint_as_float(a) + power) - power) | (u & MPTL_F32_SIGN));
  }
}

/* Rounds the first n of x in place; the others become 0. index is the first one's, and words are its random bits in the stochastic
 * mode. Returns whether it is known that no magnitude is beyond the largest value now. */
template <bool PLAIN>
MPTL_DEVICE bool mptl_round_words(float *x, unsigned n, const mptl_grid &g, const uint32_t *words, mptl_key key, uint64_t index,
                                  mptl_counts *counts) {
  if (g.way == MPTL_ROUND_NOT) return false;
  if (!PLAIN && n < MPTL_WIDE) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k >= n) x[k] = 0.0f;
  }
  if (PLAIN || g.way != MPTL_ROUND_BITS) {
    uint32_t largest = mptl_largest_of(x);
    if (largest <= g.max_bits) {
      if (g.way == MPTL_ROUND_EVEN) mptl_round_even_wide(x, g, counts);
      if (!PLAIN && g.way == MPTL_ROUND_CARRY) {
#pragma unroll
        for (int k = 0; k < MPTL_WIDE; k++) {
          uint32_t u = __float_as_uint(x[k]);
          x[k] = __uint_as_float(mptl_round_even(u & ~MPTL_F32_SIGN, g, counts) | (u & MPTL_F32_SIGN));
        }
      }
      counts->max = largest > counts->max ? largest : counts->max;
      return true;
    }
  }
  float slow[MPTL_WIDE]; /* by the definition, and in memory: rare, or slow anyway */
  uint32_t bits[MPTL_WIDE];
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) slow[k] = x[k], bits[k] = PLAIN ? 0 : words[k];
#pragma unroll 1
  for (unsigned k = 0; k < n; k++) {
    uint32_t u = __float_as_uint(slow[k]), event;
    mptl_rounder r = mptl_rounder_of(g);
    if (PLAIN) r.mode = MPTL_NEAREST_EVEN;
    slow[k] = __uint_as_float(mptl_round_bits_word(u, &r, bits[k], key, index + k, &event));
    mptl_count_event(counts, u, event);
  }
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) x[k] = slow[k];
  return false;
}

/* The same for vectors of a warp that follow each other, all lanes calling (some with n = 0): they draw random bits together. */
template <bool PLAIN = false>
MPTL_DEVICE bool mptl_round_wide(float *x, unsigned n, const mptl_sink_arg &s, size_t i, mptl_counts *counts) {
  uint32_t words[MPTL_WIDE] = {0};
  if (!PLAIN && s.grid.way == MPTL_ROUND_BITS && s.grid.mode == MPTL_STOCHASTIC) mptl_random_wide(words, s.key, s.index0 + i);
  return mptl_round_words<PLAIN>(x, n, s.grid, words, s.key, s.index0 + i, counts);
}

/* For vectors that are anywhere. index: of the first element's random bits. */
MPTL_DEVICE void mptl_round_anywhere(float *x, unsigned n, const mptl_sink_arg &s, uint64_t index, mptl_counts *counts) {
  uint32_t words[MPTL_WIDE] = {0};
  if (s.grid.way == MPTL_ROUND_BITS && s.grid.mode == MPTL_STOCHASTIC) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n) words[k] = mptl_random_u32(s.key, index + k, 0);
  }
  mptl_round_words<false>(x, n, s.grid, words, s.key, index, counts);
}

/* ---- Writing ---- */

MPTL_DEVICE void mptl_write_one(const mptl_sink_arg &s, size_t i, float x) {
  uint32_t u = __float_as_uint(x);
  switch (s.as) {
    case MPTL_AS_CODE8:
      s.data[i] = (char)mptl_encode(u, s.grid);
      break;
    case MPTL_AS_CODE16:
      mptl_store(s.data + 2 * i, (uint16_t)mptl_encode(u, s.grid));
      break;
    case MPTL_AS_CODE32:
      mptl_store(s.data + 4 * i, mptl_encode(u, s.grid));
      break;
    case MPTL_AS_BF16:
      mptl_store(s.data + 2 * i, (uint16_t)(u >> 16));
      break;
    case MPTL_AS_F32:
      mptl_store(s.data + 4 * i, s.accumulate ? mptl_load<float>(s.data + 4 * i) + x : x);
      break;
    default:
      break;
  }
}

/* Stores, or adds, the first n of x, which are rounded, as elements from i on. within: as mptl_round_wide says. */
template <bool PLAIN = false>
MPTL_DEVICE void mptl_write_wide(const mptl_sink_arg &s, size_t i, unsigned n, const float *x, bool within = false) {
  const unsigned align = PLAIN ? 16 : s.align;
  if (!PLAIN && n < MPTL_WIDE) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n) mptl_write_one(s, i + k, x[k]);
  } else if (s.as == MPTL_AS_CODE8) {
    uint32_t words[2];
    mptl_encode_wide<PLAIN, 4>(words, x, s.grid, within);
    mptl_write_words<2>(s.data + i, words, align);
  } else if (s.as == MPTL_AS_CODE16) {
    uint32_t words[4];
    mptl_encode_wide<PLAIN, 2>(words, x, s.grid, within);
    mptl_write_words<4>(s.data + 2 * i, words, align);
  } else if (s.as == MPTL_AS_BF16) {
    uint32_t words[4];
#pragma unroll
    for (int k = 0; k < MPTL_WIDE / 2; k++)
      words[k] = __float_as_uint(x[2 * k]) >> 16 | (__float_as_uint(x[2 * k + 1]) & 0xffff0000u);
    mptl_write_words<4>(s.data + 2 * i, words, align);
  } else if (s.as == MPTL_AS_F32) {
    uint32_t words[8];
    if (s.accumulate) {
      mptl_read_words<8>(words, s.data + 4 * i, align);
#pragma unroll
      for (int k = 0; k < MPTL_WIDE; k++) words[k] = __float_as_uint(__uint_as_float(words[k]) + x[k]);
    } else {
#pragma unroll
      for (int k = 0; k < MPTL_WIDE; k++) words[k] = __float_as_uint(x[k]);
    }
    mptl_write_words<8>(s.data + 4 * i, words, align);
  } else if (!PLAIN && s.as == MPTL_AS_CODE32) {
    uint32_t words[8];
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) words[k] = mptl_encode(__float_as_uint(x[k]), s.grid);
    mptl_write_words<8>(s.data + 4 * i, words, align);
  }
}

/* ---- Counting: atomic additions of integers, whose order does not matter ---- */

typedef unsigned long long mptl_u64; /* what CUDA's atomics take for uint64_t */

MPTL_DEVICE void mptl_add_u64(uint64_t *at, uint64_t n) {
  if (n > 0) atomicAdd((mptl_u64 *)at, (mptl_u64)n);
}

/* Adds what the threads of a block have counted to a tensor's statistics; all of them call. n: elements of all blocks together.
 * The warps' counts come together in shared memory first: atomics of all blocks to the same address wait for each other. */
MPTL_DEVICE void mptl_add_counts(mptl_round_stats *stats, mptl_counts c, uint64_t n) {
  __shared__ uint32_t of_block[5];
  if (stats == NULL) return; /* the same in all threads */
  c.underflow = __reduce_add_sync(0xffffffffu, c.underflow);
  c.max = __reduce_max_sync(0xffffffffu, c.max);
  bool special = __any_sync(0xffffffffu, (c.overflow | c.inf_in | c.nan_in) != 0);
  if (special) {
    c.overflow = __reduce_add_sync(0xffffffffu, c.overflow);
    c.inf_in = __reduce_add_sync(0xffffffffu, c.inf_in);
    c.nan_in = __reduce_add_sync(0xffffffffu, c.nan_in);
  }
  __syncthreads(); /* the counts of a call before have been read */
  if (threadIdx.x < 5) of_block[threadIdx.x] = 0;
  __syncthreads();
  if (mptl_lane() == 0) {
    atomicAdd(&of_block[0], c.underflow);
    if (special) atomicAdd(&of_block[1], c.overflow), atomicAdd(&of_block[2], c.inf_in), atomicAdd(&of_block[3], c.nan_in);
    atomicMax(&of_block[4], c.max);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  mptl_add_u64(&stats->underflow, of_block[0]);
  mptl_add_u64(&stats->overflow, of_block[1]);
  mptl_add_u64(&stats->inf_in, of_block[2]);
  mptl_add_u64(&stats->nan_in, of_block[3]);
  if (of_block[4] > 0) atomicMax((uint32_t *)&stats->max_abs, of_block[4]); /* patterns of magnitudes are in their order */
  if (blockIdx.x + blockIdx.y + blockIdx.z == 0) mptl_add_u64(&stats->elements, n);
}

static_assert(offsetof(mptl_exponents, zeros) == MPTL_EXPONENT_COUNTS * sizeof(uint64_t) &&
                  offsetof(mptl_exponents, inf) == offsetof(mptl_exponents, zeros) + sizeof(uint64_t) &&
                  offsetof(mptl_exponents, nan) == offsetof(mptl_exponents, inf) + sizeof(uint64_t),
              "mptl_add_exponents takes the counts for one array");

/* A block's counts of exponents, in shared memory: an mptl_exponents' counts in order, then its largest magnitude. */
enum { MPTL_EXPONENT_SLOTS = MPTL_EXPONENT_COUNTS + 3, MPTL_EXPONENT_WORDS = MPTL_EXPONENT_SLOTS + 1 };

MPTL_DEVICE void mptl_clear_exponents(uint32_t *slots) {
  for (unsigned i = threadIdx.x; i < MPTL_EXPONENT_WORDS; i += MPTL_THREADS) slots[i] = 0;
}

MPTL_DEVICE void mptl_count_exponents_wide(uint32_t *slots, const float *x, unsigned n) {
#pragma unroll
  for (unsigned k = 0; k < MPTL_WIDE; k++) {
    if (k >= n) break;
    uint32_t a = __float_as_uint(x[k]) & ~MPTL_F32_SIGN;
    bool finite = a < MPTL_F32_INF;
    int32_t slot = a == 0   ? MPTL_EXPONENT_COUNTS
                   : finite ? mptl_exponent_of(a) - MPTL_EXPONENT_FIRST
                            : MPTL_EXPONENT_COUNTS + (a == MPTL_F32_INF ? 1 : 2);
    atomicAdd(&slots[slot], 1u);
    if (finite && a > mptl_peek(&slots[MPTL_EXPONENT_SLOTS])) atomicMax(&slots[MPTL_EXPONENT_SLOTS], a);
  }
}

/* Adds a block's counts; a barrier comes before. */
MPTL_DEVICE void mptl_add_exponents(mptl_exponents *exponents, const uint32_t *slots) {
  for (unsigned i = threadIdx.x; i < MPTL_EXPONENT_SLOTS; i += MPTL_THREADS)
    mptl_add_u64((uint64_t *)exponents + i, slots[i]); /* counts, zeros, inf, nan follow each other */
  if (threadIdx.x == 0) atomicMax((uint32_t *)&exponents->max_abs, slots[MPTL_EXPONENT_SLOTS]);
}

#endif

/* Operands of kernels: how a value is stored and how results are rounded to its format, in records
 * small enough for kernel parameters; and the host functions that make them. */
#ifndef MPTL_KERNELS_CUDA_OPERANDS_H
#define MPTL_KERNELS_CUDA_OPERANDS_H

#include "kernels/cuda/compat.h"
#include "kernels/cuda/kernels.h"

#define MPTL_DEVICE static __device__ __forceinline__

enum { MPTL_WIDE = 8 };      /* elements of a vector */
enum { MPTL_THREADS = 256 }; /* of a block, in most kernels */
enum { MPTL_WARPS = MPTL_THREADS / 32 };

/* ---- Operands in kernels ---- */

/* How a value is stored. MPTL_AS_CONSTANT: all elements are mptl_source_arg.constant. */
enum mptl_storage {
  MPTL_AS_NOTHING,
  MPTL_AS_CODE8,
  MPTL_AS_CODE16,
  MPTL_AS_CODE32,
  MPTL_AS_BF16,
  MPTL_AS_F32,
  MPTL_AS_CONSTANT
};

/* How to round. KEEP, EVEN and CARRY are for magnitudes up to the largest value; others are rounded
 * by the definition.
 *   MPTL_ROUND_NOT    no rounding
 *   MPTL_ROUND_KEEP   no rounding: the values are on the grid already
 *   MPTL_ROUND_EVEN   to nearest even, by adding a power of two that depends on the exponent
 *   MPTL_ROUND_CARRY  to nearest even, by adding to the bit pattern: for formats with exponents
 *                     for which that power of two is out of range
 *   MPTL_ROUND_BITS   the definition */
enum mptl_way {
  MPTL_ROUND_NOT,
  MPTL_ROUND_KEEP,
  MPTL_ROUND_EVEN,
  MPTL_ROUND_CARRY,
  MPTL_ROUND_BITS
};

/* A rounder without its table, and constants of the quick ways. */
typedef struct mptl_grid {
  int32_t emin, m;
  uint32_t max_bits, min_bits, over_bits, code_sign, max_code, inf_code, nan_code;
  uint32_t small_below; /* smaller magnitudes are rounded by adding magic; 0: none are */
  float magic;          /* 2^(emin-m+23): adding it removes digits below the last place */
  float scale;          /* 2^(emin+126): from a code, shifted into binary32, to its value */
  float inverse_scale;  /* 1 / scale; 0: it is out of range */
  uint32_t first_exponent, lift; /* MPTL_ROUND_EVEN's power: max(exponent, first_exponent) + lift */
  uint32_t tie;                  /* MPTL_ROUND_EVEN: magnitudes up to this one become 0 */
  /* For all codes of a word at once: masks of magnitudes and signs, and what is added to a
   * magnitude so that its sign bit becomes 1 if it is above max_code. */
  uint32_t magnitudes, past_max, signs;
  uint8_t mode, way, sign_shift;
  uint8_t has_infinity, has_nan, quick_encode, quick_decode;
} mptl_grid;

typedef struct mptl_source_arg {
  const char *data;
  mptl_grid grid;
  uint8_t as, align; /* an mptl_storage; alignment of vectors in bytes, up to 16 */
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

/* ---- Making operands, on the host ---- */

static inline float mptl_power_of_two(int exponent) {
  return mptl_bits_f32((uint32_t)(exponent + 127) << 23);
} /* normal numbers only */

static inline size_t mptl_bytes_of_codes(const mptl_rounder *r) {
  int bits = 1 + r->format.e + r->format.m;
  return bits <= 8 ? 1 : bits <= 16 ? 2 : 4;
}

/* The grid of a rounder. NULL: binary32, not rounded. */
static inline mptl_grid mptl_grid_of(const mptl_rounder *r) {
  mptl_grid g;
  memset(&g, 0, sizeof g);
  g.way = MPTL_ROUND_NOT;
  if (r == NULL) return g;
  g.emin = r->emin, g.m = r->m, g.mode = (uint8_t)r->mode;
  g.max_bits = r->max_bits, g.min_bits = r->min_bits, g.over_bits = r->over_bits;
  g.code_sign = r->code_sign, g.max_code = r->max_code, g.inf_code = r->inf_code,
  g.nan_code = r->nan_code;
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
  bool by_exponent =
      r->m <= 22 && r->emin >= -126 && largest + 23 - r->m <= 127 && smallest + 23 <= 127;
  if (even && by_exponent) {
    g.first_exponent = (uint32_t)(r->emin + 127) << 23;
    g.lift = (uint32_t)(23 - r->m) << 23;
    g.tie = smallest - 1 >= -126   ? (uint32_t)(smallest - 1 + 127) << 23
            : smallest - 1 >= -149 ? 1u << (smallest - 1 + 149)
                                   : 0;
  }
  uint32_t each = r->code_sign < 0x100     ? 0x01010101u
                  : r->code_sign < 0x10000 ? 0x00010001u
                                           : 1u; /* 1 in each code of a word */
  g.magnitudes = (r->code_sign - 1) * each;
  g.past_max = (r->code_sign - 1 - r->max_code) * each;
  g.signs = r->code_sign * each;
  g.way = r->is_identity ? MPTL_ROUND_NOT
          : !even        ? MPTL_ROUND_BITS
          : by_exponent  ? MPTL_ROUND_EVEN
                         : MPTL_ROUND_CARRY;
  return g;
}

/* Whether both grids round, to the same finite values. */
static inline bool mptl_same_grid(const mptl_grid *a, const mptl_grid *b) {
  return a->way != MPTL_ROUND_NOT && b->way != MPTL_ROUND_NOT && a->emin == b->emin &&
         a->m == b->m && a->max_bits == b->max_bits;
}

static inline uint8_t mptl_storage_of(size_t size) {
  return size == 1   ? MPTL_AS_CODE8
         : size == 2 ? MPTL_AS_CODE16
         : size == 4 ? MPTL_AS_F32
                     : MPTL_AS_NOTHING;
}

/* The largest power of two up to 16 that divides an address and a pitch in bytes (0: there is one
 * row). */
static inline uint8_t mptl_align_of(const void *p, size_t pitch) {
  uintptr_t bits = (uintptr_t)p | pitch | 16;
  return (uint8_t)(bits & (~bits + 1));
}

/* pitch: elements from one row of vectors to the next; 0: the array is one row. A row begins with a
 * new vector. */
static inline mptl_source_arg mptl_source_of(const mptl_source *s, size_t pitch) {
  mptl_source_arg a;
  memset(&a, 0, sizeof a);
  a.data = (const char *)s->data;
  a.grid = mptl_grid_of(s->rounder);
  a.as = mptl_storage_of(s->size);
  a.align = mptl_align_of(s->data, pitch * s->size);
  return a;
}

static inline mptl_source_arg mptl_source_of_floats(const float *x) {
  mptl_source s = {x, sizeof(float), NULL};
  return mptl_source_of(&s, 0);
}

static inline mptl_sink_arg mptl_sink_of(const mptl_sink *s, size_t pitch) {
  mptl_sink_arg a;
  memset(&a, 0, sizeof a);
  a.data = (char *)s->data;
  a.grid = mptl_grid_of(s->rounder);
  a.as = s->data == NULL ? (uint8_t)MPTL_AS_NOTHING
         : s->accumulate ? (uint8_t)MPTL_AS_F32
                         : mptl_storage_of(s->size);
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
  return s->as == MPTL_AS_NOTHING ||
         ((s->as == MPTL_AS_F32 || s->as == MPTL_AS_BF16) && s->align >= 16);
}

static inline uint8_t mptl_storage_for(mptl_cuda_cast_type type) {
  return type == MPTL_CUDA_CAST_CODE8  ? MPTL_AS_CODE8
         : type == MPTL_CUDA_CAST_BF16 ? MPTL_AS_BF16
                                       : MPTL_AS_F32;
}

/* A sink that rounds like the array functions: numbers in binary32 are counted, too. */
static inline mptl_sink_arg mptl_array_sink(void *dst, size_t size, const mptl_rounder *rounder,
                                            mptl_key key, uint64_t index0,
                                            mptl_round_stats *stats) {
  mptl_sink s;
  memset(&s, 0, sizeof s);
  s.data = dst, s.size = size, s.rounder = rounder, s.key = key, s.index0 = index0, s.stats = stats;
  mptl_sink_arg sink = mptl_sink_of(&s, 0);
  if (rounder != NULL && rounder->is_identity) sink.grid.way = MPTL_ROUND_BITS;
  return sink;
}

/* The number of blocks for a number of pieces of work. If the pieces are more than fill the device,
 * each block takes several. */
static inline unsigned mptl_blocks_of(size_t pieces) {
  size_t most = (size_t)mptl_multiprocessors() * 8;
  return (unsigned)(pieces < most ? pieces : most);
}

/* The same for a number of threads. */
static inline unsigned mptl_blocks(size_t threads) {
  return mptl_blocks_of((threads + MPTL_THREADS - 1) / MPTL_THREADS);
}

static inline __host__ __device__ size_t mptl_vectors(size_t n) {
  return (n + MPTL_WIDE - 1) / MPTL_WIDE;
}

#endif

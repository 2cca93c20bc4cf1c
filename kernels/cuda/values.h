/* What the kernels share: reading and writing values in any storage as vectors (vectors.h), and the
 * counts of a block. */
#ifndef MPTL_KERNELS_CUDA_VALUES_H
#define MPTL_KERNELS_CUDA_VALUES_H

#include "kernels/cuda/vectors.h"

/* ---- Traversing an array ---- */

/* The element at which this thread's warp begins, and the distance to its next one. All lanes of a
 * warp make the same number of turns, so that they can work together; in the last turn some may
 * have no elements. */
MPTL_DEVICE size_t mptl_warp_begin(void) {
  return ((size_t)blockIdx.x * MPTL_THREADS + (threadIdx.x & ~31u)) * MPTL_WIDE;
}
MPTL_DEVICE size_t mptl_warp_stride(void) { return (size_t)gridDim.x * MPTL_THREADS * MPTL_WIDE; }

/* How many of n elements the vector that begins at element i has. */
MPTL_DEVICE unsigned mptl_count_at(size_t i, size_t n) {
  size_t left = i >= n ? 0 : n - i;
  return left < MPTL_WIDE ? (unsigned)left : (unsigned)MPTL_WIDE;
}

/* ---- Memory ---- */

/* Reads 4 * WORDS bytes, with the widest accesses that the alignment allows. */
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
      words[w] = mptl_load<uint16_t>(p + 4 * w) | (uint32_t)mptl_load<uint16_t>(p + 4 * w + 2)
                                                      << 16;
  } else {
#pragma unroll
    for (int w = 0; w < WORDS; w++)
      words[w] = (uint32_t)(uint8_t)p[4 * w] | (uint32_t)(uint8_t)p[4 * w + 1] << 8 |
                 (uint32_t)(uint8_t)p[4 * w + 2] << 16 | (uint32_t)(uint8_t)p[4 * w + 3] << 24;
  }
}

template <int WORDS>
MPTL_DEVICE void mptl_write_words(char *p, const uint32_t *words, unsigned align) {
  if (WORDS % 4 == 0 && align >= 16) {
#pragma unroll
    for (int w = 0; w + 3 < WORDS; w += 4)
      mptl_store(p + 4 * w, make_uint4(words[w], words[w + 1], words[w + 2], words[w + 3]));
  } else if (align >= 8) {
#pragma unroll
    for (int w = 0; w + 1 < WORDS; w += 2)
      mptl_store(p + 4 * w, make_uint2(words[w], words[w + 1]));
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

/* Reads n floats, at most MPTL_WIDE, and sets the rest of x to 0. */
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

/* Reads elements [i, i + n) of a value, n <= MPTL_WIDE, and sets the rest of x to 0. */
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

/* Stores, or adds, the first n numbers of x, which are rounded, as elements [i, i + n). within:
 * what mptl_round_wide returned. */
template <bool PLAIN = false>
MPTL_DEVICE void mptl_write_wide(const mptl_sink_arg &s, size_t i, unsigned n, const float *x,
                                 bool within = false) {
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
      for (int k = 0; k < MPTL_WIDE; k++)
        words[k] = __float_as_uint(__uint_as_float(words[k]) + x[k]);
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

typedef unsigned long long mptl_u64; /* CUDA's atomics have no overload for uint64_t */

MPTL_DEVICE void mptl_add_u64(uint64_t *at, uint64_t n) {
  if (n > 0) atomicAdd((mptl_u64 *)at, (mptl_u64)n);
}

/* Adds the counts of a block's threads to a tensor's statistics. All threads call. n: elements of
 * all blocks together. The counts of the warps are added in shared memory first, because atomics of
 * all blocks to one address wait for each other. */
MPTL_DEVICE void mptl_add_counts(mptl_round_stats *stats, mptl_counts c, uint64_t n) {
  MPTL_SHARED(uint32_t, of_block, [5]);
  if (stats == NULL) return; /* the same in all threads */
  c.underflow = __reduce_add_sync(0xffffffffu, c.underflow);
  c.max = __reduce_max_sync(0xffffffffu, c.max);
  bool special = __any_sync(0xffffffffu, (c.overflow | c.inf_in | c.nan_in) != 0);
  if (special) {
    c.overflow = __reduce_add_sync(0xffffffffu, c.overflow);
    c.inf_in = __reduce_add_sync(0xffffffffu, c.inf_in);
    c.nan_in = __reduce_add_sync(0xffffffffu, c.nan_in);
  }
  __syncthreads(); /* an earlier call has read its counts */
  if (threadIdx.x < 5) of_block[threadIdx.x] = 0;
  __syncthreads();
  if (mptl_lane() == 0) {
    atomicAdd(&of_block[0], c.underflow);
    if (special)
      atomicAdd(&of_block[1], c.overflow), atomicAdd(&of_block[2], c.inf_in),
          atomicAdd(&of_block[3], c.nan_in);
    atomicMax(&of_block[4], c.max);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  mptl_add_u64(&stats->underflow, of_block[0]);
  mptl_add_u64(&stats->overflow, of_block[1]);
  mptl_add_u64(&stats->inf_in, of_block[2]);
  mptl_add_u64(&stats->nan_in, of_block[3]);
  /* Bit patterns of magnitudes have the order of the magnitudes. */
  if (of_block[4] > 0) atomicMax((uint32_t *)&stats->max_abs, of_block[4]);
  if (blockIdx.x + blockIdx.y + blockIdx.z == 0) mptl_add_u64(&stats->elements, n);
}

static_assert(offsetof(mptl_exponents, zeros) == MPTL_EXPONENT_COUNTS * sizeof(uint64_t) &&
                  offsetof(mptl_exponents, inf) ==
                      offsetof(mptl_exponents, zeros) + sizeof(uint64_t) &&
                  offsetof(mptl_exponents, nan) == offsetof(mptl_exponents, inf) + sizeof(uint64_t),
              "mptl_add_exponents takes the counts for one array");

/* A block's exponent counts in shared memory: the counts of an mptl_exponents in order, then the
 * largest magnitude. */
enum {
  MPTL_EXPONENT_SLOTS = MPTL_EXPONENT_COUNTS + 3,
  MPTL_EXPONENT_WORDS = MPTL_EXPONENT_SLOTS + 1
};

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
    if (finite && a > mptl_peek(&slots[MPTL_EXPONENT_SLOTS]))
      atomicMax(&slots[MPTL_EXPONENT_SLOTS], a);
  }
}

/* Adds a block's exponent counts to a tensor's. The caller puts a barrier before it. */
MPTL_DEVICE void mptl_add_exponents(mptl_exponents *exponents, const uint32_t *slots) {
  for (unsigned i = threadIdx.x; i < MPTL_EXPONENT_SLOTS; i += MPTL_THREADS)
    mptl_add_u64((uint64_t *)exponents + i, slots[i]); /* counts, zeros, inf, nan are adjacent */
  if (threadIdx.x == 0) atomicMax((uint32_t *)&exponents->max_abs, slots[MPTL_EXPONENT_SLOTS]);
}

#endif

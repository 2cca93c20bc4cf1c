/* Random bits as a pure function of (seed, stream, step, index): Philox4x32-10 (Salmon, Moraes,
 * Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), which cuRAND and PyTorch
 * use, too. It has no state, so the bits do not depend on threads, vector width or device. One
 * definition for C and CUDA (method.md 5.6).
 *
 * The key of Philox is the seed. Its 128-bit counter consists of a 63-bit number, the plane (1
 * bit), the stream and the step (32 bits each). Element i of a stream is word i / 16 % 4 of counter
 * number (i / 64) * 16 + i % 16, so 16 neighbouring elements are the same word of 16 neighbouring
 * counters, which suits vectors.
 */
#ifndef MPTL_KERNELS_RANDOM_H
#define MPTL_KERNELS_RANDOM_H

#include <stdint.h>

#ifdef __CUDACC__
#define MPTL_HD __host__ __device__
#else
#define MPTL_HD
#endif

/* The purpose of a stream is the top byte of its number. The rest is the number of the tensor,
 * parameter or data set. */
enum {
  MPTL_STREAM_ROUND = 0,
  MPTL_STREAM_INIT = 1,
  MPTL_STREAM_SHUFFLE = 2,
  MPTL_STREAM_AUGMENT = 3,
  MPTL_STREAM_DROPOUT = 4
};

typedef struct mptl_key {
  uint64_t seed;
  uint32_t stream; /* purpose << 24 | number */
  uint32_t step;
} mptl_key;

static inline MPTL_HD mptl_key mptl_make_key(uint64_t seed, uint32_t purpose, uint32_t number,
                                             uint32_t step) {
  mptl_key key = {seed, purpose << 24 | (number & 0xffffffu), step};
  return key;
}

/* Computes the four words of Philox4x32-10 for a counter. plane, 0 or 1, selects one of two
 * independent sequences. */
static inline MPTL_HD void mptl_philox(uint32_t out[4], mptl_key key, uint64_t counter,
                                       uint32_t plane) {
  uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32) | plane << 31, c2 = key.stream,
           c3 = key.step;
  uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* 32 uniform random bits for an element of a stream; index is below 2^50. */
static inline MPTL_HD uint32_t mptl_random_u32(mptl_key key, uint64_t index, uint32_t plane) {
  uint32_t words[4];
  mptl_philox(words, key, (index / 64) * 16 + index % 16, plane);
  return words[index / 16 % 4];
}

/* A uniform binary32 in [0, 1), a multiple of 2^-24. */
static inline MPTL_HD float mptl_random_uniform(mptl_key key, uint64_t index) {
  return (float)(mptl_random_u32(key, index, 0) >> 8) * 0x1p-24f;
}

#endif

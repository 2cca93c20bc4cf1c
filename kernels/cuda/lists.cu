/* Several arrays rounded in one launch. The list is the kernel's parameter, so that nothing has to be copied or waited for; blocks share
 * out all arrays' elements, in chunks of one vector a thread, and a block's chunks follow each other. */
#include "kernels/cuda/values.h"

enum { CHUNK = MPTL_THREADS * MPTL_WIDE };
enum { SHORT = 4 }; /* arrays of a short list, for which the parameters stay small */

typedef struct listed {
  mptl_sink_arg sink;
  const float *src;
  size_t n, first; /* elements; number of the first chunk */
  uint8_t align;   /* of src */
} listed;

template <unsigned SIZE>
struct round_list {
  unsigned count;
  size_t chunks;
  listed arrays[SIZE]; /* none is empty */
};

/* Chunks [chunk, end) of an array; all threads of a block call. */
MPTL_DEVICE void round_chunks(const listed &a, size_t chunk, size_t end, uint32_t *exponents) {
  mptl_counts counts = mptl_no_counts();
  if (a.sink.exponents != NULL) {
    mptl_clear_exponents(exponents);
    __syncthreads();
  }
  for (size_t at = chunk; at < end; at++) {
    size_t i = (at - a.first) * CHUNK + threadIdx.x * MPTL_WIDE;
    unsigned here = mptl_count_at(i, a.n);
    float x[MPTL_WIDE];
    mptl_read_floats(x, a.src + i, here, a.align);
    if (a.sink.exponents != NULL) mptl_count_exponents_wide(exponents, x, here);
    mptl_round_wide(x, here, a.sink, i, &counts);
    mptl_write_wide(a.sink, i, here, x);
  }
  mptl_add_counts(a.sink.stats, counts, 0);
  if (a.sink.stats != NULL && chunk == a.first && threadIdx.x == 0) mptl_add_u64(&a.sink.stats->elements, a.n);
  if (a.sink.exponents != NULL) {
    __syncthreads();
    mptl_add_exponents(a.sink.exponents, exponents);
    __syncthreads(); /* the next array clears them */
  }
}

template <unsigned SIZE>
static __global__ void __launch_bounds__(MPTL_THREADS) round_kernel(MPTL_PARAM round_list<SIZE> list) {
  __shared__ uint32_t exponents[MPTL_EXPONENT_WORDS];
  size_t chunk = list.chunks * blockIdx.x / gridDim.x, end = list.chunks * (blockIdx.x + 1) / gridDim.x;
  for (unsigned k = 0; k < list.count && chunk < end; k++) {
    size_t behind = k + 1 < list.count ? list.arrays[k + 1].first : list.chunks; /* of the array's chunks */
    if (behind <= chunk) continue;
    if (behind > end) behind = end;
    round_chunks(list.arrays[k], chunk, behind, exponents);
    chunk = behind;
  }
}

template <unsigned SIZE>
static int launch(const mptl_cuda_rounding *arrays, size_t count, mptl_cuda_stream stream) {
  round_list<SIZE> list;
  memset((void *)&list, 0, sizeof list);
  for (size_t i = 0; i < count; i++) {
    const mptl_cuda_rounding *a = &arrays[i];
    bool rounds = a->dst != NULL;
    if (a->n == 0 || (!rounds && a->exponents == NULL)) continue;
    listed *l = &list.arrays[list.count++];
    l->sink = mptl_array_sink(a->dst, sizeof *a->dst, rounds ? a->rounder : NULL, a->key, a->index0, rounds ? a->stats : NULL);
    l->sink.exponents = a->exponents;
    l->src = a->src, l->n = a->n, l->first = list.chunks;
    l->align = mptl_align_of(a->src, 0);
    list.chunks += (a->n + CHUNK - 1) / CHUNK;
  }
  if (list.count == 0) return 0;
  MPTL_LAUNCH(round_kernel<SIZE>, mptl_blocks_of(list.chunks), MPTL_THREADS, 0, stream)(list);
  return mptl_launched();
}

int mptl_cuda_round_list(const mptl_cuda_rounding *arrays, size_t count, mptl_cuda_stream stream) {
  if (count > MPTL_CUDA_ROUNDINGS) return MPTL_INVALID_VALUE;
  return count <= SHORT ? launch<SHORT>(arrays, count, stream) : launch<MPTL_CUDA_ROUNDINGS>(arrays, count, stream);
}

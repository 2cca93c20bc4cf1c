/* Rounds several arrays in one launch. The list is the kernel's parameter, so nothing is copied or
 * waited for. A block rounds one chunk of an array, a thread one vector. */
#include "kernels/cuda/values.h"

enum { CHUNK = MPTL_THREADS * MPTL_WIDE };
enum { MOST_CHUNKS = 0x7fffffff };
enum { SHORT = 4 }; /* arrays of a short list, whose parameters are small */

typedef struct listed {
  mptl_sink_arg sink;
  const float *src;
  size_t n, first; /* elements; index of the first chunk */
  uint8_t align;   /* of src */
} listed;

template <unsigned SIZE>
struct round_list {
  unsigned count;
  listed arrays[SIZE]; /* not empty */
};

/* The array of a chunk: the last array whose first chunk is not after it. */
template <unsigned SIZE>
MPTL_DEVICE const listed &array_of(const round_list<SIZE> &list, size_t chunk) {
  unsigned low = 0, high = list.count;
  while (high - low > 1) {
    unsigned middle = (low + high) / 2;
    if (list.arrays[middle].first <= chunk)
      low = middle;
    else
      high = middle;
  }
  return list.arrays[low];
}

template <unsigned SIZE>
static __global__ void __launch_bounds__(MPTL_THREADS, 4)
    round_kernel(MPTL_PARAM round_list<SIZE> list) {
  MPTL_SHARED(uint32_t, exponents, [MPTL_EXPONENT_WORDS]);
  const listed &a = array_of(list, blockIdx.x);
  size_t i = (blockIdx.x - a.first) * CHUNK + threadIdx.x * MPTL_WIDE;
  unsigned n = mptl_count_at(i, a.n);
  mptl_counts counts = mptl_no_counts();
  float x[MPTL_WIDE];
  mptl_read_floats(x, a.src + i, n, a.align);
  if (a.sink.exponents != NULL) {
    mptl_clear_exponents(exponents);
    __syncthreads();
    mptl_count_exponents_wide(exponents, x, n);
    __syncthreads();
    mptl_add_exponents(a.sink.exponents, exponents);
  }
  mptl_round_wide(x, n, a.sink, i, &counts);
  mptl_write_wide(a.sink, i, n, x);
  mptl_add_counts(a.sink.stats, counts, 0);
  if (a.sink.stats != NULL && blockIdx.x == a.first && threadIdx.x == 0)
    mptl_add_u64(&a.sink.stats->elements, a.n);
}

template <unsigned SIZE>
static int launch(const mptl_rounding *arrays, size_t count, mptl_cuda_stream stream) {
  round_list<SIZE> list;
  size_t chunks = 0;
  memset((void *)&list, 0, sizeof list);
  for (size_t i = 0; i < count; i++) {
    const mptl_rounding *a = &arrays[i];
    bool rounds = a->dst != NULL;
    if (a->n == 0 || (!rounds && a->exponents == NULL)) continue;
    listed *l = &list.arrays[list.count++];
    l->sink = mptl_array_sink(a->dst, sizeof *a->dst, rounds ? a->rounder : NULL, a->key, a->index0,
                              rounds ? a->stats : NULL);
    l->sink.exponents = a->exponents;
    l->src = a->src, l->n = a->n, l->first = chunks;
    l->align = mptl_align_of(a->src, 0);
    chunks += (a->n + CHUNK - 1) / CHUNK;
  }
  if (list.count == 0) return 0;
  if (chunks > MOST_CHUNKS) return MPTL_INVALID_VALUE;
  MPTL_LAUNCH(round_kernel<SIZE>, (unsigned)chunks, MPTL_THREADS, 0, stream)(list);
  return mptl_launched();
}

int mptl_cuda_round_list(const mptl_rounding *arrays, size_t count, mptl_cuda_stream stream) {
  if (count > MPTL_CUDA_ROUNDINGS) return MPTL_INVALID_VALUE;
  return count <= SHORT ? launch<SHORT>(arrays, count, stream)
                        : launch<MPTL_CUDA_ROUNDINGS>(arrays, count, stream);
}

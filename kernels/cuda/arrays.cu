/* Whole arrays: converts any storage to any other, with rounding and counting. */
#include "kernels/cuda/values.h"

/* Elements of a row, if the source's rows and the sink's have different lengths. Elements that are
 * not in the source are 0. */
typedef struct row_lengths {
  size_t from, to;
} row_lengths;

/* Reads elements [i, i + n) of the sink from the source. */
MPTL_DEVICE void read_rows(float *x, const mptl_source_arg &s, size_t i, unsigned n,
                           row_lengths length) {
  size_t row = i / length.to, at = i - row * length.to;
#pragma unroll
  for (unsigned k = 0; k < MPTL_WIDE; k++) {
    x[k] = k < n && at < length.from ? mptl_read_one(s, row * length.from + at) : 0.0f;
    if (++at == length.to) at = 0, row++;
  }
}

/* Reads, adds a bias by channel, rounds, counts and writes, in one traversal. */
template <bool PLAIN, bool ROWS>
static __global__ void __launch_bounds__(MPTL_THREADS, PLAIN ? 6 : 4)
    write_kernel(MPTL_PARAM mptl_sink_arg sink, MPTL_PARAM mptl_source_arg source, size_t n,
                 const float *bias, size_t c, row_lengths length) {
  MPTL_SHARED(uint32_t, exponents, [MPTL_EXPONENT_WORDS]);
  mptl_counts counts = mptl_no_counts();
  if (!PLAIN && sink.exponents != NULL) {
    mptl_clear_exponents(exponents);
    __syncthreads();
  }
  for (size_t at = mptl_warp_begin(); at < n; at += mptl_warp_stride()) {
    size_t i = at + mptl_lane() * MPTL_WIDE;
    unsigned here = PLAIN ? (unsigned)MPTL_WIDE : mptl_count_at(i, n);
    float x[MPTL_WIDE];
    if (PLAIN && i >= n) break;
    if (ROWS)
      read_rows(x, source, i, here, length);
    else
      mptl_read_wide<PLAIN>(x, source, i, here);
    if (!PLAIN && bias != NULL) {
      size_t channel = i % c;
#pragma unroll
      for (unsigned k = 0; k < MPTL_WIDE; k++) {
        if (k < here) x[k] += bias[channel];
        channel = channel + 1 == c ? 0 : channel + 1;
      }
    }
    if (!PLAIN && sink.exponents != NULL) mptl_count_exponents_wide(exponents, x, here);
    bool within = mptl_round_wide<PLAIN>(x, here, sink, i, &counts);
    mptl_write_wide<PLAIN>(sink, i, here, x, within);
  }
  mptl_add_counts(sink.stats, counts, n);
  if (!PLAIN && sink.exponents != NULL) {
    __syncthreads();
    mptl_add_exponents(sink.exponents, exponents);
  }
}

/* The plain form for sources in binary32. A thread has two times four elements, APART elements from
 * each other, so that each access of a warp reads 512 adjacent bytes. n is a multiple of 2 *
 * APART. */
enum { APART = 128 };

MPTL_DEVICE void write_apart(const mptl_sink_arg &s, size_t i, const float *x, bool within) {
  uint32_t words[MPTL_WIDE];
  if (s.as == MPTL_AS_CODE8) {
    mptl_encode_wide<true, 4>(words, x, s.grid, within);
    mptl_store(s.data + i, words[0]);
    mptl_store(s.data + i + APART, words[1]);
  } else if (s.as == MPTL_AS_CODE16) {
    mptl_encode_wide<true, 2>(words, x, s.grid, within);
    mptl_store(s.data + 2 * i, make_uint2(words[0], words[1]));
    mptl_store(s.data + 2 * (i + APART), make_uint2(words[2], words[3]));
  } else if (s.as == MPTL_AS_F32) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      char *at = s.data + 4 * (i + half * APART);
      if (s.accumulate) mptl_read_words<4>(words + 4 * half, at, 16);
#pragma unroll
      for (int k = 4 * half; k < 4 * half + 4; k++)
        words[k] = __float_as_uint(s.accumulate ? __uint_as_float(words[k]) + x[k] : x[k]);
      mptl_write_words<4>(at, words + 4 * half, 16);
    }
  }
}

static __global__ void __launch_bounds__(MPTL_THREADS, 6)
    write_apart_kernel(MPTL_PARAM mptl_sink_arg sink, const float *source, size_t n) {
  mptl_counts counts = mptl_no_counts();
  for (size_t at = mptl_warp_begin(); at < n; at += mptl_warp_stride()) {
    size_t i = at + mptl_lane() * 4;
    uint32_t words[MPTL_WIDE];
    float x[MPTL_WIDE];
    mptl_read_words<4>(words, (const char *)(source + i), 16);
    mptl_read_words<4>(words + 4, (const char *)(source + i + APART), 16);
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) x[k] = __uint_as_float(words[k]);
    bool within = mptl_round_wide<true>(x, MPTL_WIDE, sink, i, &counts);
    write_apart(sink, i, x, within);
  }
  mptl_add_counts(sink.stats, counts, n);
}

static bool goes_apart(const mptl_sink_arg *sink, const mptl_source_arg *source, size_t n) {
  return source->as == MPTL_AS_F32 && sink->as != MPTL_AS_BF16 && n % (2 * APART) == 0;
}

static int write(const mptl_sink_arg *sink, const mptl_source_arg *source, size_t n,
                 const float *bias, size_t c, mptl_cuda_stream stream) {
  if (n == 0) return 0;
  if (bias != NULL && c == 0) return MPTL_INVALID_VALUE;
  bool plain = n % MPTL_WIDE == 0 && bias == NULL && mptl_is_plain(source) && mptl_is_plain(sink);
  if (plain && goes_apart(sink, source, n)) {
    MPTL_LAUNCH(write_apart_kernel, mptl_blocks(mptl_vectors(n)), MPTL_THREADS, 0, stream)
    (*sink, (const float *)source->data, n);
    return mptl_launched();
  }
  auto kernel = plain ? write_kernel<true, false> : write_kernel<false, false>;
  MPTL_LAUNCH(kernel, mptl_blocks(mptl_vectors(n)), MPTL_THREADS, 0, stream)
  (*sink, *source, n, bias, c, row_lengths());
  return mptl_launched();
}

/* The same for rows, which are cut off or filled up with zeros. */
static int write_rows(const mptl_sink_arg *sink, const mptl_source_arg *source, size_t rows,
                      row_lengths length, const float *bias, mptl_cuda_stream stream) {
  size_t n = rows * length.to;
  if (length.from == length.to) return write(sink, source, n, bias, length.to, stream);
  if (n == 0) return 0;
  auto kernel = write_kernel<false, true>;
  MPTL_LAUNCH(kernel, mptl_blocks(mptl_vectors(n)), MPTL_THREADS, 0, stream)
  (*sink, *source, n, bias, length.to, length);
  return mptl_launched();
}

static mptl_sink_arg plain_sink(void *dst, size_t size) {
  mptl_key none = {0, 0, 0};
  return mptl_array_sink(dst, size, NULL, none, 0, NULL);
}

int mptl_cuda_round(float *dst, const float *src, size_t n, const mptl_rounder *rounder,
                    mptl_key key, uint64_t index0, mptl_round_stats *stats,
                    mptl_cuda_stream stream) {
  mptl_sink_arg sink = mptl_array_sink(dst, sizeof *dst, rounder, key, index0, stats);
  mptl_source_arg source = mptl_source_of_floats(src);
  return write(&sink, &source, n, NULL, 0, stream);
}

int mptl_cuda_encode(void *codes, const float *src, size_t n, const mptl_rounder *rounder,
                     mptl_key key, uint64_t index0, mptl_round_stats *stats,
                     mptl_cuda_stream stream) {
  mptl_sink_arg sink =
      mptl_array_sink(codes, mptl_bytes_of_codes(rounder), rounder, key, index0, stats);
  mptl_source_arg source = mptl_source_of_floats(src);
  if (sink.as == MPTL_AS_F32) sink.as = MPTL_AS_CODE32;
  return write(&sink, &source, n, NULL, 0, stream);
}

int mptl_cuda_decode(float *dst, const void *codes, size_t n, const mptl_rounder *rounder,
                     mptl_cuda_stream stream) {
  mptl_source s = {codes, mptl_bytes_of_codes(rounder), rounder};
  mptl_source_arg source = mptl_source_of(&s, 0);
  mptl_sink_arg sink = plain_sink(dst, sizeof *dst);
  if (source.as == MPTL_AS_F32) source.as = MPTL_AS_CODE32;
  return write(&sink, &source, n, NULL, 0, stream);
}

int mptl_cuda_write_rows(const mptl_sink *sink, const float *results, size_t rows, size_t wide,
                         const float *bias, size_t c, mptl_cuda_stream stream) {
  mptl_sink_arg to = mptl_sink_of(sink, 0);
  mptl_source_arg source = mptl_source_of_floats(results);
  row_lengths length = {wide, c};
  return write_rows(&to, &source, rows, length, bias, stream);
}

static mptl_source_arg constant_source(float value) {
  mptl_source_arg source = mptl_source_of_floats(NULL);
  source.as = MPTL_AS_CONSTANT;
  source.constant = value;
  return source;
}

int mptl_cuda_write_constant(const mptl_sink *sink, float value, size_t n,
                             mptl_cuda_stream stream) {
  mptl_sink_arg to = mptl_sink_of(sink, 0);
  mptl_source_arg source = constant_source(value);
  return write(&to, &source, n, NULL, 0, stream);
}

int mptl_cuda_fill(float *x, float value, size_t n, mptl_cuda_stream stream) {
  mptl_sink_arg sink = plain_sink(x, sizeof *x);
  mptl_source_arg source = constant_source(value);
  return write(&sink, &source, n, NULL, 0, stream);
}

static mptl_sink_arg cast_sink(void *dst, mptl_cuda_cast_type type, const mptl_rounder *rounder) {
  mptl_sink_arg sink = plain_sink(dst, sizeof(float));
  sink.as = mptl_storage_for(type);
  if (type == MPTL_CUDA_CAST_CODE8) {
    sink.grid = mptl_grid_of(rounder);
    sink.grid.way = MPTL_ROUND_NOT;
  }
  return sink;
}

int mptl_cuda_cast_rows(void *dst, mptl_cuda_cast_type type, const mptl_source *source, size_t rows,
                        size_t c, size_t wide, mptl_cuda_stream stream) {
  mptl_source_arg from = mptl_source_of(source, 0);
  mptl_sink_arg sink = cast_sink(dst, type, source->rounder);
  row_lengths length = {c, wide};
  return write_rows(&sink, &from, rows, length, NULL, stream);
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    max_abs_kernel(MPTL_PARAM mptl_source_arg source, size_t n, float *largest) {
  uint32_t max = 0;
  for (size_t at = mptl_warp_begin(); at < n; at += mptl_warp_stride()) {
    size_t i = at + mptl_lane() * MPTL_WIDE;
    float x[MPTL_WIDE];
    mptl_read_wide(x, source, i, mptl_count_at(i, n));
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) {
      uint32_t a = __float_as_uint(x[k]) & ~MPTL_F32_SIGN;
      if (a < MPTL_F32_INF && a > max) max = a;
    }
  }
  max = __reduce_max_sync(0xffffffffu, max);
  if (mptl_lane() == 0 && max > 0) atomicMax((uint32_t *)largest, max);
}

int mptl_cuda_max_abs(float *largest, const mptl_source *source, size_t n,
                      mptl_cuda_stream stream) {
  if (n == 0) return 0;
  MPTL_LAUNCH(max_abs_kernel, mptl_blocks(mptl_vectors(n)), MPTL_THREADS, 0, stream)
  (mptl_source_of(source, 0), n, largest);
  return mptl_launched();
}

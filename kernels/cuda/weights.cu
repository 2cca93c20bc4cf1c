/* Weights between PyTorch's order and the order of NHWC convolutions. In both directions the matrix
 * [a][b] of each of k filters is transposed to [b][a], in tiles in shared memory. A block reads one
 * tile in the order of the source, rounds, and writes in the order of the destination, so that the
 * accesses of a warp are adjacent on both sides. */
#include "kernels/cuda/values.h"

enum { TILE = MPTL_THREADS * MPTL_WIDE }; /* the most elements: a vector for each thread */
enum { LONGEST_SIDE = 128 };              /* of the shorter side of a tile in a large matrix */
enum { MOST_BLOCKS = 0x7fffffff };

/* How k matrices [a][b] are transposed. */
typedef struct turn {
  size_t k, a, b;
  unsigned tile_k, tile_a, tile_b; /* a tile: several whole matrices, or a part of one */
  unsigned tiles_a, tiles_b;       /* tiles of a matrix */
  size_t tiles;
  uint8_t align, wide; /* alignment of the source; elements that are written at a time */
} turn;

/* ---- The tiles ---- */

/* The elements of a vector that begins at `at` of a line of `length` elements. */
MPTL_DEVICE unsigned count_in(unsigned at, unsigned length, unsigned wide) {
  unsigned left = at >= length ? 0 : length - at;
  return left < wide ? left : wide;
}

/* Where an element of a tile is in shared memory. Adjacent vectors of a warp, and columns of
 * matrices of most sizes, are in different banks. */
MPTL_DEVICE unsigned slot(unsigned e) { return e + e / 32; }

/* Writes the first n numbers of x, at most 4. */
MPTL_DEVICE void write_floats(float *to, const float *x, unsigned n, unsigned align) {
  if (n == 4 && align >= 16) {
    mptl_store_16(to, make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]),
                                 __float_as_uint(x[2]), __float_as_uint(x[3])));
    return;
  }
#pragma unroll
  for (unsigned k = 0; k < 4; k++)
    if (k < n) to[k] = x[k];
}

template <bool ROUNDS>
static __global__ void __launch_bounds__(MPTL_THREADS)
    turn_kernel(MPTL_PARAM mptl_sink_arg sink, const float *src, MPTL_PARAM turn t) {
  MPTL_SHARED(float, tile, [TILE + TILE / 32]);
  MPTL_SHARED(uint32_t, exponents, [ROUNDS ? MPTL_EXPONENT_WORDS : 1]);
  mptl_counts counts = mptl_no_counts();
  size_t k0 = (size_t)(blockIdx.x / t.tiles_b / t.tiles_a) * t.tile_k;
  size_t a0 = (size_t)(blockIdx.x / t.tiles_b % t.tiles_a) * t.tile_a,
         b0 = (size_t)(blockIdx.x % t.tiles_b) * t.tile_b;
  unsigned nk = t.k - k0 < t.tile_k ? (unsigned)(t.k - k0) : t.tile_k;
  unsigned na = t.a - a0 < t.tile_a ? (unsigned)(t.a - a0) : t.tile_a;
  unsigned nb = t.b - b0 < t.tile_b ? (unsigned)(t.b - b0) : t.tile_b;
  if (ROUNDS && sink.exponents != NULL) {
    mptl_clear_exponents(exponents);
    __syncthreads();
  }

  /* The tile's lines of the source: one if the tile has whole rows. A warp is within one line,
   * because its lanes compute random bits together. */
  unsigned lines = nb == t.b ? 1 : na, length = nb == t.b ? nk * na * nb : nb,
           parts = (unsigned)mptl_vectors(length);
  if (ROUNDS) parts = (parts + 31) & ~31u;
  for (unsigned part = threadIdx.x; part < lines * parts; part += MPTL_THREADS) {
    unsigned line = lines == 1 ? 0 : part / parts, at = (part - line * parts) * MPTL_WIDE,
             n = count_in(at, length, MPTL_WIDE);
    size_t from = (k0 * t.a + a0 + line) * t.b + b0 + at;
    float x[MPTL_WIDE];
    mptl_read_floats(x, src + from, n, t.align);
    if (ROUNDS && sink.exponents != NULL) mptl_count_exponents_wide(exponents, x, n);
    if (ROUNDS) mptl_round_wide(x, n, sink, from, &counts);
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n) tile[slot(line * nb + at + k)] = x[k];
  }
  __syncthreads();

  lines = na == t.a ? 1 : nb, length = na == t.a ? nk * nb * na : na,
  parts = (length + t.wide - 1) / t.wide;
  for (unsigned part = threadIdx.x; part < lines * parts; part += MPTL_THREADS) {
    unsigned line = lines == 1 ? 0 : part / parts, at = (part - line * parts) * t.wide,
             n = count_in(at, length, t.wide);
    unsigned row = lines == 1 ? at / na : line,
             matrix = nk == 1 ? 0 : row / nb; /* in the tile; line is 0 or row */
    unsigned a = lines == 1 ? at - row * na : at, b = row - matrix * nb, first = matrix * na * nb;
    size_t to = (k0 * t.b + b0 + line) * t.a + a0 + at;
    float x[MPTL_WIDE];
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++) {
      x[k] = k < n ? tile[slot(first + a * nb + b)] : 0.0f;
      if (++a == na) a = 0, b++;
      if (b == nb) b = 0, first += na * nb;
    }
    if (!ROUNDS || t.wide == 4)
      write_floats((float *)sink.data + to, x, n, sink.align);
    else
      mptl_write_wide(sink, to, n, x);
  }
  if (!ROUNDS) return;
  mptl_add_counts(sink.stats, counts, t.k * t.a * t.b);
  if (sink.exponents != NULL) mptl_add_exponents(sink.exponents, exponents);
}

/* ---- Launching ---- */

/* Divides the longer side of a matrix into parts of about equal size, as long as a tile with this
 * shorter side allows: a multiple of 64, for which random bits are computed faster, or of 8. */
static unsigned fitting(size_t side, unsigned shorter) {
  unsigned most = TILE / shorter, grain = most >= 64 ? 64 : MPTL_WIDE;
  most -= most % grain;
  size_t parts = (side + most - 1) / most, even = (side + parts - 1) / parts;
  return (unsigned)((even + grain - 1) / grain * grain);
}

/* Chooses how to transpose k matrices [a][b], and sets the alignment of the sink. */
static turn plan(size_t k, size_t a, size_t b, const float *src, mptl_sink_arg *sink) {
  turn t;
  memset((void *)&t, 0, sizeof t);
  if (a == 1 || b == 1) b *= k * a, k = a = 1; /* transposing changes nothing */
  t.k = k, t.a = a, t.b = b, t.tile_k = 1;
  if (a <= TILE && b <= TILE / a) {
    size_t most = TILE / (a * b);
    t.tile_a = (unsigned)a, t.tile_b = (unsigned)b, t.tile_k = (unsigned)(k < most ? k : most);
    while (t.tile_k % 8 != 0 && (t.tile_k & (t.tile_k - 1)) != 0)
      t.tile_k--; /* tiles begin on multiples of 16 bytes */
  } else if (a < b) {
    t.tile_a = a < LONGEST_SIDE ? (unsigned)a : (unsigned)LONGEST_SIDE;
    t.tile_b = fitting(b, t.tile_a);
  } else {
    t.tile_b = b < LONGEST_SIDE ? (unsigned)b : (unsigned)LONGEST_SIDE;
    t.tile_a = fitting(a, t.tile_b);
  }
  t.tiles_a = (unsigned)((a + t.tile_a - 1) / t.tile_a),
  t.tiles_b = (unsigned)((b + t.tile_b - 1) / t.tile_b);
  t.tiles = (k + t.tile_k - 1) / t.tile_k * t.tiles_a * t.tiles_b;
  /* The distances of lines and tiles in elements, combined by or: vectors begin at multiples of the
   * lowest set bit. */
  bool several = k > t.tile_k, by_a = a > t.tile_a, by_b = b > t.tile_b;
  size_t both = several ? t.tile_k * a * b : 0;
  size_t in_source = both | (by_a ? t.tile_a * b : 0) | (by_b ? t.tile_b | (a > 1 ? b : 0) : 0);
  size_t in_sink = both | (by_b ? t.tile_b * a : 0) | (by_a ? t.tile_a | (b > 1 ? a : 0) : 0);
  size_t size = sink->as == MPTL_AS_F32 ? 4 : sink->as == MPTL_AS_BF16 ? 2 : 1;
  t.align = mptl_align_of(src, in_source * sizeof(float));
  t.wide = size == 4 ? 4 : MPTL_WIDE;
  sink->align = mptl_align_of(sink->data, in_sink * size);
  return t;
}

int mptl_cuda_round_weights(void *dst, mptl_cuda_cast_type type, const mptl_rounding *weights,
                            mptl_cuda_weights shape, mptl_cuda_stream stream) {
  if (shape.k * shape.c * shape.s == 0) return 0;
  mptl_sink_arg sink = mptl_array_sink(dst, sizeof(float), weights->rounder, weights->key,
                                       weights->index0, weights->stats);
  sink.as = mptl_storage_for(type);
  sink.exponents = weights->exponents;
  turn t = plan(shape.k, shape.c, shape.s, weights->src, &sink);
  if (t.tiles > MOST_BLOCKS) return MPTL_INVALID_VALUE;
  MPTL_LAUNCH(turn_kernel<true>, (unsigned)t.tiles, MPTL_THREADS, 0, stream)(sink, weights->src, t);
  return mptl_launched();
}

int mptl_cuda_unpack_weights(float *dst, const float *src, mptl_cuda_weights shape,
                             mptl_cuda_stream stream) {
  if (shape.k * shape.c * shape.s == 0) return 0;
  mptl_key none = {};
  mptl_sink_arg sink = mptl_array_sink(dst, sizeof(float), NULL, none, 0, NULL);
  turn t = plan(shape.k, shape.s, shape.c, src, &sink);
  if (t.tiles > MOST_BLOCKS) return MPTL_INVALID_VALUE;
  MPTL_LAUNCH(turn_kernel<false>, (unsigned)t.tiles, MPTL_THREADS, 0, stream)(sink, src, t);
  return mptl_launched();
}

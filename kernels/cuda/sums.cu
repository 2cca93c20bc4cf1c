/* Sums by channel over the rows of an NHWC value, and what batch norms compute from them.
 *
 * The order of the sums depends only on the shape. A block of 256 threads sums a range of rows and
 * up to 256 channels; a thread sums eight channels of at most ROWS rows, in binary32. The block
 * adds the sums of its threads in binary64, and a second kernel adds the sums of the blocks.
 */
#include "kernels/cuda/specialised.h"

namespace {

enum { ROWS = 64, FEW_ROWS = 4, MANY_BLOCKS = 512 };
enum { FINISH_CHANNELS = 4, FINISH_LANES = MPTL_THREADS / FINISH_CHANNELS };

/* How rows and channels are divided among threads. A block's threads form lanes x columns: each
 * column sums eight channels, each lane one of `lanes` adjacent rows at a time. */
struct layout {
  size_t rows, rows_of_block;
  uint32_t c;       /* channels */
  uint32_t columns; /* a power of two up to 32 */
  uint32_t lanes;
  uint32_t blocks; /* along the rows */
  uint32_t tiles;  /* blocks along the channels */
};

layout layout_of(size_t rows, size_t c) {
  layout l;
  size_t eights = (c + MPTL_WIDE - 1) / MPTL_WIDE;
  l.rows = rows, l.c = (uint32_t)c, l.columns = 1;
  while (l.columns < 32 && l.columns < eights) l.columns *= 2;
  l.lanes = MPTL_THREADS / l.columns;
  l.tiles = (uint32_t)((eights + l.columns - 1) / l.columns);
  size_t each = (rows + (size_t)l.lanes * MANY_BLOCKS - 1) / ((size_t)l.lanes * MANY_BLOCKS);
  each = each < FEW_ROWS ? (size_t)FEW_ROWS : each > ROWS ? (size_t)ROWS : each;
  l.rows_of_block = each * l.lanes;
  l.blocks = (uint32_t)((rows + l.rows_of_block - 1) / l.rows_of_block);
  return l;
}

/* Which sums. */
enum what { SUM_ONLY, MOMENTS, PRODUCTS };

/* Runs instructions J to N - 1 of a specialised stage on one vector, without counting: the
 * traversal that stores counts. Top is the rounded result. */
template <uint64_t SIGNATURE, int N, int J>
MPTL_DEVICE void run_instructions(const mptl_instruction_list &list, mptl_stack *stack, size_t i,
                                  uint32_t channel) {
  const mptl_instruction &s = list.at[J];
  float r[MPTL_WIDE];
  mptl_counts counts = mptl_no_counts();
  mptl_move_stack(mptl_flags_at(SIGNATURE, J), stack);
  mptl_compute_instruction<true>(r, mptl_opcode_at(SIGNATURE, J), mptl_flags_at(SIGNATURE, J), s,
                                 stack, i, MPTL_WIDE, channel, list.c, true);
  mptl_round_wide<true>(r, MPTL_WIDE, s.sink, i, &counts);
  mptl_copy_wide(stack->top, r);
  if constexpr (J + 1 < N) run_instructions<SIGNATURE, N, J + 1>(list, stack, i, channel);
}

/* partial[block][2][c]: sums of a and of b, by channel, where
 *   SUM_ONLY   a = the result of the list, b = 0
 *   MOMENTS    a = x - x of the first row, b = a^2
 *   PRODUCTS   a = the result of the list, b = a (x - mean)
 * Each has its own kernel, because instructions take many registers, which moments do not need. */
template <what kind, bool PLAIN, uint64_t SIGNATURE = 0, int N = 0>
__global__ void __launch_bounds__(MPTL_THREADS, kind == MOMENTS || PLAIN ? 4 : 2)
    sums_kernel(double *partial, MPTL_PARAM layout l, MPTL_PARAM mptl_source_arg x,
                const float *mean, MPTL_PARAM mptl_instruction_list list) {
  MPTL_SHARED(float, shared, [MPTL_THREADS * 2 * MPTL_WIDE]); /* [lane][2][channel of the tile] */
  uint32_t column = threadIdx.x % l.columns, lane = threadIdx.x / l.columns,
           width = l.columns * MPTL_WIDE;
  uint32_t channel = (blockIdx.y * l.columns + column) * MPTL_WIDE;
  unsigned n = mptl_count_at(channel, l.c);
  if (n == 0) channel = 0; /* sums nothing, but its instructions read vectors here */
  bool in_line = width == l.c;
  float center[MPTL_WIDE], sum[MPTL_WIDE], sum2[MPTL_WIDE];
#pragma unroll
  for (unsigned k = 0; k < MPTL_WIDE; k++) {
    sum[k] = sum2[k] = 0.0f;
    center[k] = kind == MOMENTS && k < n ? mptl_read_one(x, channel + k) : 0.0f;
  }
  size_t begin = (size_t)blockIdx.x * l.rows_of_block;
  for (size_t at = 0; at < l.rows_of_block; at += l.lanes) {
    size_t row = begin + at + lane, i = row * l.c + channel;
    unsigned here = row < l.rows ? n : 0;
    float v[MPTL_WIDE], a[MPTL_WIDE];
    if (PLAIN && here == 0) break;
    if (kind == MOMENTS) {
      mptl_read_wide<PLAIN>(v, x, i, here);
#pragma unroll
      for (unsigned k = 0; k < MPTL_WIDE; k++) {
        float d = PLAIN || k < here ? v[k] - center[k] : 0.0f;
        sum[k] += d;
        sum2[k] += d * d;
      }
      continue;
    }
    mptl_stack stack = mptl_no_stack();
    mptl_counts counts = mptl_no_counts(); /* not used: the traversal that stores counts */
    if constexpr (N > 0) run_instructions<SIGNATURE, N, 0>(list, &stack, i, channel);
    for (int j = 0; N == 0 && j < list.n; j++) {
      const mptl_instruction &s = list.at[j];
      mptl_compute_instruction<PLAIN>(a, s.opcode, s.flags, s, &stack, i, here, channel, l.c,
                                      in_line);
      if (PLAIN || in_line)
        mptl_round_wide<PLAIN>(a, here, s.sink, i, &counts);
      else
        mptl_round_anywhere(a, here, s.sink, s.sink.index0 + i, &counts);
      mptl_copy_wide(stack.top, a);
    }
    /* x and mean are read last, because instructions take all registers. */
    if (kind == PRODUCTS) mptl_read_wide<PLAIN>(v, x, i, here);
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++) {
      if (!PLAIN && k >= here) continue;
      sum[k] += stack.top[k];
      if (kind == PRODUCTS) sum2[k] += stack.top[k] * (v[k] - mean[channel + k]);
    }
  }
#pragma unroll
  for (unsigned k = 0; k < MPTL_WIDE; k++) {
    shared[lane * 2 * width + column * MPTL_WIDE + k] = sum[k];
    shared[lane * 2 * width + width + column * MPTL_WIDE + k] = sum2[k];
  }
  __syncthreads();
  for (uint32_t j = threadIdx.x; j < 2 * width; j += MPTL_THREADS) {
    uint32_t which = j / width, of = blockIdx.y * width + j % width;
    double total = 0;
    for (uint32_t k = 0; k < l.lanes; k++) total += (double)shared[k * 2 * width + j];
    if (of < l.c) partial[((size_t)blockIdx.x * 2 + which) * l.c + of] = total;
  }
}

/* ---- Totals, and what is computed from them ---- */

enum after { BATCHNORM_TRAIN, BATCHNORM_EVALUATE, BATCHNORM_BACKWARD, BIAS };

/* Partial sums and the addresses of the results (kernels.h, stage.h). */
struct finish {
  after kind;
  size_t rows;
  uint32_t c, blocks;
  const double *partial;
  float *vectors, *dbias;
  mptl_cuda_batchnorm bn;
};

MPTL_DEVICE void batchnorm_forward(const finish &f, const mptl_source_arg &x, uint32_t i,
                                   double sum, double sum2) {
  const mptl_cuda_batchnorm &bn = f.bn;
  float mean, inv_std;
  if (f.kind == BATCHNORM_EVALUATE) {
    mean = bn.running_mean[i];
    inv_std = (float)(1.0 / sqrt((double)bn.running_var[i] + bn.eps));
  } else {
    double n = (double)f.rows, m = sum / n, var = fmax(sum2 / n - m * m, 0.0),
           unbiased = var * n / (double)(f.rows - 1);
    mean = (float)((double)mptl_read_one(x, i) + m);
    inv_std = (float)(1.0 / sqrt(var + bn.eps));
    if (bn.running_mean != NULL) {
      bn.running_mean[i] =
          (float)((1.0 - bn.momentum) * (double)bn.running_mean[i] + bn.momentum * (double)mean);
      bn.running_var[i] =
          (float)((1.0 - bn.momentum) * (double)bn.running_var[i] + bn.momentum * unbiased);
    }
  }
  bn.mean[i] = mean;
  bn.inv_std[i] = inv_std;
  float scale = inv_std * bn.gamma[i];
  f.vectors[MPTL_SCALE * mptl_padded(f.c) + i] = scale;
  f.vectors[MPTL_SHIFT * mptl_padded(f.c) + i] = bn.beta[i] - mean * scale;
}

/* With xhat = (x - mean) inv_std: dgamma = sum dy xhat, dbeta = sum dy, dx = gamma inv_std (dy -
 * dbeta / n - xhat dgamma / n). */
MPTL_DEVICE void batchnorm_backward(const finish &f, uint32_t i, double sum_dy, double sum_dyx) {
  const mptl_cuda_batchnorm &bn = f.bn;
  uint32_t padded = mptl_padded(f.c);
  double n = (double)f.rows, inv = (double)bn.inv_std[i];
  bn.dgamma[i] = (float)(sum_dyx * inv);
  bn.dbeta[i] = (float)sum_dy;
  f.vectors[MPTL_A * padded + i] = (float)(sum_dy / n);
  f.vectors[MPTL_B * padded + i] = (float)(sum_dyx * inv * inv / n);
  f.vectors[MPTL_SCALE * padded + i] = bn.inv_std[i] * bn.gamma[i];
  f.vectors[MPTL_MEAN * padded + i] = bn.mean[i];
}

/* A block totals FINISH_CHANNELS channels. Each lane adds its share of the partial sums; then the
 * lanes are added by halves. */
__global__ void __launch_bounds__(MPTL_THREADS)
    finish_kernel(MPTL_PARAM finish f, MPTL_PARAM mptl_source_arg x) {
  MPTL_SHARED(double, shared, [2][MPTL_THREADS]);
  uint32_t i = blockIdx.x * FINISH_CHANNELS + threadIdx.x % FINISH_CHANNELS,
           lane = threadIdx.x / FINISH_CHANNELS;
  double sum = 0, sum2 = 0;
#pragma unroll 4
  for (uint32_t b = lane; i < f.c && b < f.blocks; b += FINISH_LANES) {
    sum += f.partial[(size_t)b * 2 * f.c + i];
    sum2 += f.partial[((size_t)b * 2 + 1) * f.c + i];
  }
  for (uint32_t half = FINISH_LANES / 2; half > 0; half /= 2) {
    shared[0][threadIdx.x] = sum;
    shared[1][threadIdx.x] = sum2;
    __syncthreads();
    if (lane < half) {
      sum += shared[0][threadIdx.x + half * FINISH_CHANNELS];
      sum2 += shared[1][threadIdx.x + half * FINISH_CHANNELS];
    }
    __syncthreads();
  }
  if (lane != 0 || i >= f.c) return;
  if (f.kind == BIAS)
    f.dbias[i] = (float)sum;
  else if (f.kind == BATCHNORM_BACKWARD)
    batchnorm_backward(f, i, sum, sum2);
  else
    batchnorm_forward(f, x, i, sum, sum2);
}

template <bool PLAIN>
auto kernel_of(what kind) {
  return kind == MOMENTS    ? sums_kernel<MOMENTS, PLAIN>
         : kind == PRODUCTS ? sums_kernel<PRODUCTS, PLAIN>
                            : sums_kernel<SUM_ONLY, PLAIN>;
}

typedef void sums_kernel_type(double *, layout, mptl_source_arg, const float *,
                              mptl_instruction_list);

/* ---- Specialised stages: the gradients that usual networks sum ---- */

template <uint64_t... Bytes>
bool has_signature(const mptl_instruction_list *list) {
  uint64_t signature;
  return mptl_signature_of(&signature, list) && list->n == sizeof...(Bytes) &&
         signature == mptl_signature(Bytes...);
}

template <uint64_t... Bytes>
sums_kernel_type *kernel_through() {
  return sums_kernel<PRODUCTS, true, mptl_signature(Bytes...), sizeof...(Bytes)>;
}

sums_kernel_type *find_kernel(what kind, const mptl_instruction_list *list, bool plain) {
  using namespace mptl_instruction_bytes;
  if (plain && kind == PRODUCTS) {
    if (has_signature<load>(list)) return kernel_through<load>();
    if (has_signature<load, take>(list)) return kernel_through<load, take>();
    if (has_signature<load, through_relu>(list)) return kernel_through<load, through_relu>();
    if (has_signature<load, through_relu, take>(list))
      return kernel_through<load, through_relu, take>();
  }
  return plain ? kernel_of<true>(kind) : kernel_of<false>(kind);
}

int sum_up(const layout &l, void *partial, what kind, const mptl_source_arg &x, const float *mean,
           const mptl_instruction_list *list, mptl_cuda_stream stream) {
  bool plain =
      l.c % MPTL_WIDE == 0 && (kind == SUM_ONLY || mptl_is_plain(&x)) && mptl_are_plain(list);
  sums_kernel_type *kernel = find_kernel(kind, list, plain);
  MPTL_LAUNCH(kernel, dim3(l.blocks, l.tiles), MPTL_THREADS, 0, stream)
  ((double *)partial, l, x, mean, *list);
  return mptl_launched();
}

int finish_up(const finish &f, const mptl_source_arg &x, mptl_cuda_stream stream) {
  MPTL_LAUNCH(finish_kernel, (f.c + FINISH_CHANNELS - 1) / FINISH_CHANNELS, MPTL_THREADS, 0, stream)
  (f, x);
  return mptl_launched();
}

finish finish_of(after kind, const layout &l, const void *partial) {
  finish f;
  memset(&f, 0, sizeof f);
  f.kind = kind, f.rows = l.rows, f.c = l.c, f.blocks = l.blocks,
  f.partial = (const double *)partial;
  return f;
}

}  // namespace

size_t mptl_sums_bytes(size_t rows, size_t c) {
  return (size_t)layout_of(rows, c).blocks * 2 * c * sizeof(double);
}

int mptl_batchnorm_begin(const mptl_cuda_batchnorm *bn, const mptl_source *x, size_t rows, size_t c,
                         bool train, float *vectors, void *partial, mptl_cuda_stream stream) {
  layout l = layout_of(rows, c);
  mptl_source_arg source = mptl_source_of(x, c);
  if (train) {
    if (rows < 2) return MPTL_INVALID_VALUE;
    mptl_instruction_list none;
    none.n = 0, none.numel = 0, none.c = (uint32_t)c;
    int error = sum_up(l, partial, MOMENTS, source, NULL, &none, stream);
    if (error != 0) return error;
  }
  finish f = finish_of(train ? BATCHNORM_TRAIN : BATCHNORM_EVALUATE, l, partial);
  if (!train) f.blocks = 0;
  f.vectors = vectors;
  f.bn = *bn;
  return finish_up(f, source, stream);
}

int mptl_batchnorm_backward_begin(const mptl_cuda_batchnorm *bn, const mptl_source *x,
                                  const mptl_instruction_list *list, size_t rows, size_t c,
                                  float *vectors, void *partial, mptl_cuda_stream stream) {
  layout l = layout_of(rows, c);
  mptl_source_arg source = mptl_source_of(x, c);
  int error = sum_up(l, partial, PRODUCTS, source, bn->mean, list, stream);
  if (error != 0) return error;
  finish f = finish_of(BATCHNORM_BACKWARD, l, partial);
  f.vectors = vectors;
  f.bn = *bn;
  return finish_up(f, source, stream);
}

size_t mptl_cuda_bias_gradient_scratch(size_t rows, size_t c) { return mptl_sums_bytes(rows, c); }

int mptl_cuda_bias_gradient(float *dbias, const mptl_source *dy, size_t rows, size_t c,
                            void *scratch, mptl_cuda_stream stream) {
  if (c == 0) return 0;
  layout l = layout_of(rows, c);
  mptl_source_arg source = mptl_source_of(dy, c);
  mptl_instruction_list list;
  memset(&list, 0, sizeof list);
  list.n = 1;
  list.numel = rows * c, list.c = (uint32_t)c;
  list.at[0].opcode = MPTL_INS_LOAD;
  list.at[0].flags = MPTL_INS_READ;
  list.at[0].source = source;
  int error = rows == 0 ? 0 : sum_up(l, scratch, SUM_ONLY, source, NULL, &list, stream);
  if (error != 0) return error;
  finish f = finish_of(BIAS, l, scratch);
  f.dbias = dbias;
  return finish_up(f, source, stream);
}

/* Stages of pointwise operators: a thread takes an element through all operators, and what passes between them stays with it. Batch norms
 * need sums by channel first: kernels of their own, which forward read the norm's input, and backward compute the gradient of its output
 * once more on the way.
 */
#include <math.h>

#include "kernels/cuda/channels.h"
#include "kernels/cuda/elements.h"

enum { OPS = MPTL_CUDA_STAGE_OPS };
enum { VECTORS = 3 }; /* by channel, of each batch norm: see scale and gradient */

/* An operator as the kernels get it. */
typedef struct op_arg {
  int kind, n_in, from[2];
  mptl_source_arg in[2], out;
  mptl_sink_arg y, dx[2];
  size_t valid;
  uint32_t dropped; /* dropout: words whose upper 24 bits are below it */
  float factor;     /* ... and what the others are multiplied by */
  mptl_key mask;
  mptl_cuda_batchnorm bn;
  float *vectors; /* batchnorm: VECTORS of them */
} op_arg;

typedef struct stage_arg {
  int n;
  unsigned c;
  size_t numel;
  bool train;
  op_arg ops[OPS];
  mptl_source_arg dy;
} stage_arg;

/* ---- On the host ---- */

static bool is_norm(const mptl_cuda_op *op) { return op->kind == MPTL_CUDA_BATCHNORM; }

static int norms(const mptl_cuda_stage *s) {
  int count = 0;
  for (int j = 0; j < s->n; j++) count += is_norm(&s->ops[j]);
  return count;
}

static size_t vectors_bytes(const mptl_cuda_stage *s) { return (VECTORS * s->c * sizeof(float) + 15) / 16 * 16; }

static mptl_sums_shape sums_of(const mptl_cuda_stage *s) { return mptl_sums_shape_of(s->c > 0 ? s->numel / s->c : 0, s->c); }

/* The norms' vectors, then partial sums: two of each norm. */
size_t mptl_cuda_stage_scratch(const mptl_cuda_stage *s) {
  mptl_sums_shape sums = sums_of(s);
  return (size_t)norms(s) * (vectors_bytes(s) + mptl_sums_bytes(&sums, 2));
}

static op_arg op_of(const mptl_cuda_op *op) {
  op_arg a;
  memset(&a, 0, sizeof a);
  a.kind = op->kind, a.n_in = op->n_in, a.valid = op->valid, a.mask = op->mask, a.bn = op->bn;
  for (int k = 0; k < 2; k++) {
    a.from[k] = op->from[k];
    a.in[k] = mptl_source_of(&op->in[k], 0);
    a.dx[k] = mptl_sink_of(&op->dx[k], 0);
  }
  a.out = mptl_source_of(&op->out, 0);
  a.y = mptl_sink_of(&op->y, 0);
  a.dropped = (uint32_t)ceil(op->p * 0x1p24);
  a.factor = op->p < 1.0 ? (float)(1.0 / (1.0 - op->p)) : 0.0f;
  return a;
}

static int stage_of(stage_arg *a, const mptl_cuda_stage *s) {
  if (s->n < 1 || s->n > OPS || s->c == 0) return MPTL_INVALID_VALUE;
  memset(a, 0, sizeof *a);
  a->n = s->n, a->c = (unsigned)s->c, a->numel = s->numel, a->train = s->train;
  a->dy = mptl_source_of(&s->dy, 0);
  char *vectors = (char *)s->scratch;
  for (int j = 0; j < s->n; j++) {
    a->ops[j] = op_of(&s->ops[j]);
    if (!is_norm(&s->ops[j])) continue;
    a->ops[j].vectors = (float *)vectors;
    vectors += vectors_bytes(s);
  }
  return 0;
}

static double *partial_of(const mptl_cuda_stage *s) {
  return (double *)((char *)s->scratch + (size_t)norms(s) * vectors_bytes(s));
}

static unsigned channel_blocks(const mptl_cuda_stage *s) { return (unsigned)((s->c + MPTL_THREADS - 1) / MPTL_THREADS); }

/* ---- Forward ---- */

/* Sums of a norm's input and of its square, around the first pixel. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    moments_kernel(MPTL_PARAM mptl_sums_shape shape, MPTL_PARAM mptl_source_arg x, double *partial) {
  __shared__ double shared[MPTL_THREADS];
  unsigned channel = mptl_sums_channel(shape), count = 0;
  mptl_sums_rows rows = mptl_rows_of(shape);
  double sum = 0, squares = 0;
  float part = 0, part_squares = 0, shift = channel < shape.c ? mptl_read_one(x, channel) : 0.0f;
  for (size_t r = rows.begin; r < rows.end && channel < shape.c; r += rows.step) {
    float d = mptl_read_one(x, r * shape.c + channel) - shift;
    part += d;
    part_squares += d * d;
    if (++count % MPTL_FLUSH != 0) continue;
    sum += (double)part, squares += (double)part_squares;
    part = part_squares = 0;
  }
  mptl_store_piece(shape, partial, 2, 0, sum + (double)part, shared);
  mptl_store_piece(shape, partial, 2, 1, squares + (double)part_squares, shared);
}

/* Statistics of a norm, and y = x scale + shift: vectors 0 and 1. partial NULL: by the running statistics. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    scale_kernel(MPTL_PARAM mptl_sums_shape shape, MPTL_PARAM op_arg op, const double *partial) {
  unsigned i = blockIdx.x * MPTL_THREADS + threadIdx.x;
  if (i >= shape.c) return;
  const mptl_cuda_batchnorm &bn = op.bn;
  if (partial == NULL) {
    bn.mean[i] = bn.running_mean[i];
    bn.inv_std[i] = (float)(1.0 / sqrt((double)bn.running_var[i] + bn.eps));
  } else {
    double n = (double)shape.rows, m = mptl_total(shape, partial, 2, 0, i) / n;
    double var = fmax(mptl_total(shape, partial, 2, 1, i) / n - m * m, 0.0);
    bn.mean[i] = (float)((double)mptl_read_one(op.in[0], i) + m);
    bn.inv_std[i] = (float)(1.0 / sqrt(var + bn.eps));
    bn.running_mean[i] = (float)((1.0 - bn.momentum) * (double)bn.running_mean[i] + bn.momentum * (double)bn.mean[i]);
    bn.running_var[i] = (float)((1.0 - bn.momentum) * (double)bn.running_var[i] + bn.momentum * (var * n / (n - 1.0)));
  }
  float scale = bn.inv_std[i] * bn.gamma[i];
  op.vectors[i] = scale;
  op.vectors[shape.c + i] = bn.beta[i] - bn.mean[i] * scale;
}

MPTL_DEVICE bool is_nan(float x) { return x != x; }

MPTL_DEVICE float drop(const op_arg &op, size_t i, float x) {
  return mptl_random_u32(op.mask, i, 0) >> 8 >= op.dropped ? x * op.factor : 0.0f;
}

MPTL_DEVICE float forward_one(const stage_arg &s, const op_arg &op, size_t i, float x0, float x1) {
  switch (op.kind) {
    case MPTL_CUDA_INPUT:
      return i < op.valid ? x0 : 0.0f;
    case MPTL_CUDA_BATCHNORM:
      return x0 * op.vectors[i % s.c] + op.vectors[s.c + i % s.c];
    case MPTL_CUDA_RELU:
      return x0 > 0.0f || is_nan(x0) ? x0 : 0.0f;
    case MPTL_CUDA_RELU6:
      return x0 > 6.0f ? 6.0f : x0 > 0.0f || is_nan(x0) ? x0 : 0.0f;
    case MPTL_CUDA_SIGMOID:
      return (float)(1.0 / (1.0 + exp(-(double)x0)));
    case MPTL_CUDA_DROPOUT:
      return s.train ? drop(op, i, x0) : x0;
    case MPTL_CUDA_ADD:
      return x0 + x1;
    default:
      return x0 * x1;
  }
}

/* An input of operator j: what an operator before it gave, or from memory. */
MPTL_DEVICE float input_of(const op_arg &op, int k, size_t i, const float *values) {
  if (k >= op.n_in) return 0.0f;
  if (op.from[k] >= 0) return values[op.from[k]];
  bool beyond = op.kind == MPTL_CUDA_INPUT && i >= op.valid; /* the host gave no more */
  return beyond ? 0.0f : mptl_read_one(op.in[k], i);
}

static __global__ void __launch_bounds__(MPTL_THREADS) forward_kernel(MPTL_PARAM stage_arg s) {
  mptl_counts counts[OPS];
  float values[OPS];
  for (int j = 0; j < s.n; j++) counts[j] = mptl_no_counts();
  for (size_t i = mptl_first_element(); i < s.numel; i += mptl_element_step()) {
    for (int j = 0; j < s.n; j++) {
      const op_arg &op = s.ops[j];
      float y = forward_one(s, op, i, input_of(op, 0, i, values), input_of(op, 1, i, values));
      values[j] = mptl_round_element(y, op.y, i, &counts[j]);
    }
    mptl_write_one(s.ops[s.n - 1].y, i, values[s.n - 1]);
  }
  for (int j = 0; j < s.n; j++) mptl_add_counts(s.ops[j].y.stats, counts[j], s.numel);
}

int mptl_cuda_stage_forward(const mptl_cuda_stage *stage, mptl_cuda_stream stream) {
  stage_arg s;
  int error = stage_of(&s, stage);
  if (error != 0 || stage->numel == 0) return error;
  mptl_sums_shape sums = sums_of(stage);
  double *partial = partial_of(stage);
  for (int j = 0; j < s.n; j++) {
    if (s.ops[j].kind != MPTL_CUDA_BATCHNORM) continue;
    if (s.train) MPTL_LAUNCH(moments_kernel, mptl_sums_grid(&sums), MPTL_THREADS, 0, stream)(sums, s.ops[j].in[0], partial);
    MPTL_LAUNCH(scale_kernel, channel_blocks(stage), MPTL_THREADS, 0, stream)
    (sums, s.ops[j], s.train ? (const double *)partial : (const double *)NULL);
  }
  MPTL_LAUNCH(forward_kernel, mptl_element_blocks(s.numel), MPTL_THREADS, 0, stream)(s);
  return mptl_launched();
}

/* ---- Backward ---- */

/* The gradient of operator j's input k, unrounded. */
MPTL_DEVICE float backward_one(const stage_arg &s, const op_arg &op, int k, size_t i, float dy) {
  switch (op.kind) {
    case MPTL_CUDA_BATCHNORM: {
      unsigned c = (unsigned)(i % s.c);
      float x = mptl_read_one(op.in[0], i);
      return (dy - op.vectors[c] - (x - op.bn.mean[c]) * op.vectors[s.c + c]) * op.vectors[2 * s.c + c];
    }
    case MPTL_CUDA_RELU: {
      float y = mptl_read_one(op.out, i);
      return y > 0.0f || is_nan(y) ? dy : 0.0f;
    }
    case MPTL_CUDA_RELU6: {
      float y = mptl_read_one(op.out, i);
      return (y > 0.0f && y < 6.0f) || is_nan(y) ? dy : 0.0f;
    }
    case MPTL_CUDA_SIGMOID: {
      float y = mptl_read_one(op.out, i);
      return dy * (y * (1.0f - y));
    }
    case MPTL_CUDA_DROPOUT:
      return drop(op, i, dy);
    case MPTL_CUDA_ADD:
      return dy;
    case MPTL_CUDA_MUL:
      return dy * mptl_read_one(op.in[1 - k], i);
    default:
      return 0.0f;
  }
}

/* Whether an input's gradient is wanted. */
MPTL_DEVICE bool wanted(const op_arg &op, int k) { return k < op.n_in && op.dx[k].stats != NULL; }

/* The sink without what is counted: for gradients that are computed once more. */
MPTL_DEVICE mptl_sink_arg uncounted(const mptl_sink_arg &sink) {
  mptl_sink_arg s = sink;
  s.exponents = NULL;
  return s;
}

/* Takes an element's gradient back through the operators to each norm's output: sums of it, and of it times (x - mean). */
static __global__ void __launch_bounds__(MPTL_THREADS)
    gradient_sums_kernel(MPTL_PARAM mptl_sums_shape shape, MPTL_PARAM stage_arg s, double *partial, unsigned kinds) {
  __shared__ double shared[MPTL_THREADS];
  unsigned channel = mptl_sums_channel(shape), count = 0;
  mptl_sums_rows rows = mptl_rows_of(shape);
  mptl_counts unused = mptl_no_counts();
  double sums[OPS][2];
  float parts[OPS][2], gradients[OPS];
  for (int j = 0; j < s.n; j++) sums[j][0] = sums[j][1] = 0, parts[j][0] = parts[j][1] = 0;
  for (size_t r = rows.begin; r < rows.end && channel < shape.c; r += rows.step) {
    size_t i = r * shape.c + channel;
    gradients[s.n - 1] = mptl_read_one(s.dy, i);
    for (int j = s.n - 1; j >= 0; j--) {
      const op_arg &op = s.ops[j];
      float dy = gradients[j];
      if (op.kind == MPTL_CUDA_BATCHNORM) {
        parts[j][0] += dy;
        parts[j][1] += dy * (mptl_read_one(op.in[0], i) - op.bn.mean[channel]);
        continue;
      }
      for (int k = 0; k < 2; k++)
        if (wanted(op, k) && op.from[k] >= 0)
          gradients[op.from[k]] = mptl_round_element(backward_one(s, op, k, i, dy), uncounted(op.dx[k]), i, &unused);
    }
    if (++count % MPTL_FLUSH != 0) continue;
    for (int j = 0; j < s.n; j++)
      for (int w = 0; w < 2; w++) sums[j][w] += (double)parts[j][w], parts[j][w] = 0;
  }
  unsigned kind = 0;
  for (int j = 0; j < s.n; j++) {
    if (s.ops[j].kind != MPTL_CUDA_BATCHNORM) continue;
    for (int w = 0; w < 2; w++) mptl_store_piece(shape, partial, kinds, kind++, sums[j][w] + (double)parts[j][w], shared);
  }
}

/* Gradients of a norm's parameters, and the vectors of that of its input: dx = (dy - v0 - (x - mean) v1) v2. */
static __global__ void __launch_bounds__(MPTL_THREADS) gradient_kernel(MPTL_PARAM mptl_sums_shape shape, MPTL_PARAM op_arg op,
                                                                       const double *partial, unsigned kinds, unsigned kind) {
  unsigned i = blockIdx.x * MPTL_THREADS + threadIdx.x;
  if (i >= shape.c) return;
  double n = (double)shape.rows, inv = (double)op.bn.inv_std[i];
  double sum_dy = mptl_total(shape, partial, kinds, kind, i), sum_dyx = mptl_total(shape, partial, kinds, kind + 1, i);
  op.bn.dgamma[i] = (float)(sum_dyx * inv);
  op.bn.dbeta[i] = (float)sum_dy;
  op.vectors[i] = (float)(sum_dy / n);
  op.vectors[shape.c + i] = (float)(sum_dyx * inv * inv / n);
  op.vectors[2 * shape.c + i] = op.bn.inv_std[i] * op.bn.gamma[i];
}

static __global__ void __launch_bounds__(MPTL_THREADS) backward_kernel(MPTL_PARAM stage_arg s) {
  mptl_counts counts[OPS][2];
  float gradients[OPS];
  for (int j = 0; j < s.n; j++) counts[j][0] = counts[j][1] = mptl_no_counts();
  for (size_t i = mptl_first_element(); i < s.numel; i += mptl_element_step()) {
    gradients[s.n - 1] = mptl_read_one(s.dy, i);
    for (int j = s.n - 1; j >= 0; j--) {
      const op_arg &op = s.ops[j];
      float results[2];
      for (int k = 0; k < 2; k++)
        if (wanted(op, k)) results[k] = backward_one(s, op, k, i, gradients[j]);
      for (int k = 0; k < 2; k++) {
        if (!wanted(op, k)) continue;
        float rounded = mptl_round_element(results[k], op.dx[k], i, &counts[j][k]);
        if (op.from[k] >= 0)
          gradients[op.from[k]] = rounded;
        else
          mptl_write_one(op.dx[k], i, rounded);
      }
    }
  }
  for (int j = 0; j < s.n; j++)
    for (int k = 0; k < 2; k++)
      if (wanted(s.ops[j], k)) mptl_add_counts(s.ops[j].dx[k].stats, counts[j][k], s.numel);
}

int mptl_cuda_stage_backward(const mptl_cuda_stage *stage, mptl_cuda_stream stream) {
  stage_arg s;
  int error = stage_of(&s, stage);
  if (error != 0 || stage->numel == 0) return error;
  mptl_sums_shape sums = sums_of(stage);
  unsigned kinds = 2 * (unsigned)norms(stage), kind = 0;
  double *partial = partial_of(stage);
  bool any = false;
  if (kinds > 0) MPTL_LAUNCH(gradient_sums_kernel, mptl_sums_grid(&sums), MPTL_THREADS, 0, stream)(sums, s, partial, kinds);
  for (int j = 0; j < s.n; j++) {
    for (int k = 0; k < s.ops[j].n_in; k++) any = any || s.ops[j].dx[k].stats != NULL;
    if (s.ops[j].kind != MPTL_CUDA_BATCHNORM) continue;
    MPTL_LAUNCH(gradient_kernel, channel_blocks(stage), MPTL_THREADS, 0, stream)
    (sums, s.ops[j], (const double *)partial, kinds, kind);
    kind += 2;
  }
  if (any) MPTL_LAUNCH(backward_kernel, mptl_element_blocks(s.numel), MPTL_THREADS, 0, stream)(s);
  return mptl_launched();
}

/* Stages of pointwise operators: the steps of a stage, and the kernel that runs them over its elements in one pass. */
#include "kernels/cuda/stage.h"

#include <math.h>

/* ---- Running ---- */

/* What a block counts: by warp and step. */
enum { COUNTS = sizeof(mptl_counts) / sizeof(uint32_t) };

/* Adds a vector's counts to the warp's; all lanes call. */
static __device__ __forceinline__ void count(uint32_t *of_step, const mptl_counts &c) {
  uint32_t underflow = __reduce_add_sync(0xffffffffu, c.underflow), max = __reduce_max_sync(0xffffffffu, c.max);
  bool special = __any_sync(0xffffffffu, (c.overflow | c.inf_in | c.nan_in) != 0);
  uint32_t overflow = 0, inf_in = 0, nan_in = 0;
  if (special) {
    overflow = __reduce_add_sync(0xffffffffu, c.overflow);
    inf_in = __reduce_add_sync(0xffffffffu, c.inf_in);
    nan_in = __reduce_add_sync(0xffffffffu, c.nan_in);
  }
  if (mptl_lane() != 0) return;
  of_step[0] += underflow;
  if (special) of_step[1] += overflow, of_step[2] += inf_in, of_step[3] += nan_in;
  if (max > of_step[4]) of_step[4] = max;
}

/* Adds up the warps' counts of a step, of which this thread is one. */
static __device__ void add_counts(mptl_round_stats *stats, const uint32_t *counts, int steps, int which, uint64_t n) {
  uint32_t max = 0;
  uint64_t sums[4] = {0, 0, 0, 0};
  for (int w = 0; w < MPTL_WARPS; w++) {
    const uint32_t *of_step = counts + (w * steps + which) * COUNTS;
    for (int k = 0; k < 4; k++) sums[k] += of_step[k];
    max = of_step[4] > max ? of_step[4] : max;
  }
  mptl_add_u64(&stats->underflow, sums[0]);
  mptl_add_u64(&stats->overflow, sums[1]);
  mptl_add_u64(&stats->inf_in, sums[2]);
  mptl_add_u64(&stats->nan_in, sums[3]);
  if (max > 0) atomicMax((uint32_t *)&stats->max_abs, max);
  if (blockIdx.x == 0) mptl_add_u64(&stats->elements, n);
}

static __global__ void __launch_bounds__(MPTL_THREADS) steps_kernel(MPTL_PARAM mptl_steps steps) {
  __shared__ uint32_t counts[MPTL_WARPS * MPTL_STEPS * COUNTS];
  MPTL_DYNAMIC_SHARED(uint32_t, exponents);
  for (unsigned i = threadIdx.x; i < MPTL_WARPS * MPTL_STEPS * COUNTS; i += MPTL_THREADS) counts[i] = 0;
  for (int j = 0; j < steps.n; j++)
    if (steps.step[j].exponents >= 0) mptl_clear_exponents(exponents + steps.step[j].exponents * MPTL_EXPONENT_WORDS);
  __syncthreads();
  uint32_t *of_warp = counts + threadIdx.x / 32 * (unsigned)steps.n * COUNTS;
  for (size_t at = mptl_warp_begin(); at < steps.numel; at += mptl_warp_step()) {
    size_t i = at + mptl_lane() * MPTL_WIDE;
    unsigned here = mptl_count_at(i, steps.numel);
    uint32_t channel = (uint32_t)(i % steps.c);
    mptl_stack stack = mptl_no_stack();
    for (int j = 0; j < steps.n; j++) {
      const mptl_step &s = steps.step[j];
      float r[MPTL_WIDE];
      mptl_before_step(s, &stack);
      mptl_compute_step(r, s, &stack, i, here, channel, steps.c, true);
      if (s.exponents >= 0) mptl_count_exponents_wide(exponents + s.exponents * MPTL_EXPONENT_WORDS, r, here);
      if (s.sink.grid.way != MPTL_ROUND_NOT) {
        mptl_counts c = mptl_no_counts();
        mptl_round_wide(r, here, s.sink, i, &c);
        count(of_warp + j * COUNTS, c);
      }
      if (s.flags & MPTL_STEP_STORE)
        mptl_write_wide(s.sink, i, here, r);
      else
        mptl_copy_wide(stack.top, r);
    }
  }
  __syncthreads();
  for (int j = (int)threadIdx.x; j < steps.n; j += MPTL_THREADS)
    if (steps.step[j].sink.stats != NULL) add_counts(steps.step[j].sink.stats, counts, steps.n, j, steps.numel);
  for (int j = 0; j < steps.n; j++)
    if (steps.step[j].exponents >= 0)
      mptl_add_exponents(steps.step[j].sink.exponents, exponents + steps.step[j].exponents * MPTL_EXPONENT_WORDS);
}

static int run(mptl_steps *steps, mptl_cuda_stream stream) {
  int exponents = 0;
  for (int j = 0; j < steps->n; j++) {
    mptl_step *s = &steps->step[j];
    s->exponents = s->sink.exponents != NULL ? (int8_t)exponents++ : (int8_t)-1;
  }
  if (steps->n == 0 || steps->numel == 0) return 0;
  MPTL_LAUNCH(steps_kernel, mptl_blocks(mptl_vectors(steps->numel)), MPTL_THREADS,
              (size_t)exponents * MPTL_EXPONENT_WORDS * sizeof(uint32_t), stream)
  (*steps);
  return mptl_launched();
}

/* ---- Steps of a stage ---- */

/* A list under construction. Steps get their flags when they are added; `flags` go to the next one. */
typedef struct builder {
  const mptl_cuda_stage *stage;
  mptl_steps *steps;
  uint8_t flags;
  bool failed;  /* too many steps */
  size_t pitch; /* of vectors: 0, or the channels where each row is by itself */
} builder;

static builder builder_of(const mptl_cuda_stage *stage, mptl_steps *steps, size_t pitch) {
  builder b = {stage, steps, 0, false, pitch};
  memset(steps, 0, sizeof *steps);
  steps->c = (uint32_t)stage->c;
  steps->numel = stage->numel;
  return b;
}

/* store: the result goes to the sink's memory, else it is only rounded as the sink says. */
static mptl_step *add_step(builder *b, mptl_step_code code, const mptl_cuda_source *source, const mptl_cuda_sink *sink,
                           bool store) {
  if (b->steps->n == MPTL_STEPS) {
    b->failed = true;
    return &b->steps->step[MPTL_STEPS - 1];
  }
  mptl_step *s = &b->steps->step[b->steps->n++];
  s->code = (uint8_t)code;
  s->flags = b->flags;
  b->flags = 0;
  if (source != NULL) {
    s->source = mptl_source_of(source, b->pitch);
    s->flags |= MPTL_STEP_READ;
  }
  if (sink != NULL) {
    s->sink = mptl_sink_of(sink, b->pitch);
    if (store) s->flags |= MPTL_STEP_STORE;
  }
  return s;
}

/* Batch norms' vectors and partial sums in the stage's scratch. */
static size_t vectors_bytes(const mptl_cuda_stage *st) {
  return MPTL_VECTORS * (size_t)mptl_padded((uint32_t)st->c) * sizeof(float);
}
static size_t partial_bytes(const mptl_cuda_stage *st) { return (mptl_sums_bytes(st->numel / st->c, st->c) + 15) / 16 * 16; }
static float *vectors_of(const mptl_cuda_stage *st, int j) {
  return (float *)((char *)st->scratch + (size_t)j * vectors_bytes(st));
}
static void *partial_of(const mptl_cuda_stage *st) { return (char *)st->scratch + (size_t)st->n * vectors_bytes(st); }

size_t mptl_cuda_stage_scratch(const mptl_cuda_stage *st) {
  if (st->c == 0) return 0;
  return (size_t)st->n * vectors_bytes(st) + partial_bytes(st);
}

/* What dropout_f32 of kernels/cpu makes of p. */
static void set_dropout(mptl_step *s, const mptl_cuda_op *op) {
  s->mask = op->mask;
  s->below = (uint32_t)ceil(op->p * 0x1p24);
  s->factor = op->p < 1.0 ? (float)(1.0 / (1.0 - op->p)) : 0.0f;
}

static bool binary(const mptl_cuda_op *op) { return op->kind == MPTL_CUDA_ADD || op->kind == MPTL_CUDA_MUL; }

/* Registers that operator j takes, of the three there are: trees of MPTL_CUDA_STAGE_OPS operators need no more. */
static int registers(const mptl_cuda_stage *st, int j) {
  const mptl_cuda_op *op = &st->ops[j];
  int need[2] = {1, 1};
  for (int k = 0; k < op->n_in && k < 2; k++)
    if (op->from[k] >= 0) need[k] = registers(st, op->from[k]);
  if (op->n_in < 2 || op->from[0] < 0 || op->from[1] < 0) return need[0] > need[1] ? need[0] : need[1];
  return need[0] == need[1] ? need[0] + 1 : need[0] > need[1] ? need[0] : need[1];
}

/* The operator of a stage is in it, and what it takes comes before. */
static bool sound(const mptl_cuda_stage *st) {
  if (st->n < 1 || st->n > MPTL_CUDA_STAGE_OPS || st->c == 0 || st->c > UINT32_MAX / 2 || st->numel % st->c != 0) return false;
  int readers[MPTL_CUDA_STAGE_OPS] = {0};
  for (int j = 0; j < st->n; j++) {
    const mptl_cuda_op *op = &st->ops[j];
    if (op->n_in != (binary(op) ? 2 : 1)) return false;
    for (int k = 0; k < op->n_in; k++) {
      if (op->from[k] < -1 || op->from[k] >= j) return false;
      if (op->from[k] >= 0) readers[op->from[k]]++;
    }
    if (st->train && op->kind == MPTL_CUDA_BATCHNORM && op->from[0] >= 0) return false;
  }
  for (int j = 0; j < st->n; j++)
    if (readers[j] != (j < st->n - 1)) return false;
  return true;
}

static void add_value(builder *b, int j);

/* Makes the k-th input of an operator the value in hand. */
static void add_operand(builder *b, const mptl_cuda_op *op, int k) {
  if (op->from[k] >= 0)
    add_value(b, op->from[k]);
  else
    add_step(b, MPTL_STEP_LOAD, &op->in[k], NULL, false);
}

static mptl_step_code forward_code(const mptl_cuda_op *op, bool train) {
  switch (op->kind) {
    case MPTL_CUDA_BATCHNORM:
      return MPTL_STEP_BATCHNORM;
    case MPTL_CUDA_RELU:
      return MPTL_STEP_RELU;
    case MPTL_CUDA_RELU6:
      return MPTL_STEP_RELU6;
    case MPTL_CUDA_SIGMOID:
      return MPTL_STEP_SIGMOID;
    case MPTL_CUDA_DROPOUT:
      return train ? MPTL_STEP_DROPOUT : MPTL_STEP_TAKE;
    case MPTL_CUDA_ADD:
      return MPTL_STEP_ADD;
    case MPTL_CUDA_MUL:
      return MPTL_STEP_MUL;
    default:
      return MPTL_STEP_TAKE;
  }
}

/* Steps that end with operator j's output in hand, or in memory. */
static void add_value(builder *b, int j) {
  const mptl_cuda_op *op = &b->stage->ops[j];
  const mptl_cuda_source *second = NULL;
  bool last = j == b->stage->n - 1;
  if (op->kind == MPTL_CUDA_INPUT) {
    add_step(b, MPTL_STEP_INPUT, &op->in[0], &op->y, last)->valid = op->valid;
    return;
  }
  if (!binary(op)) {
    add_operand(b, op, 0);
  } else {
    int first = op->from[0] < 0 || (op->from[1] >= 0 && registers(b->stage, op->from[1]) > registers(b->stage, op->from[0]));
    if (op->from[first] < 0) first = 0; /* both in memory */
    add_operand(b, op, first);
    if (op->from[1 - first] < 0) {
      second = &op->in[1 - first];
    } else {
      b->flags |= MPTL_STEP_PUSH;
      add_operand(b, op, 1 - first);
    }
  }
  mptl_step *s = add_step(b, forward_code(op, b->stage->train), second, &op->y, last);
  if (op->kind == MPTL_CUDA_BATCHNORM) s->vectors = vectors_of(b->stage, j);
  if (op->kind == MPTL_CUDA_DROPOUT) set_dropout(s, op);
}

int mptl_cuda_stage_forward(const mptl_cuda_stage *st, mptl_cuda_stream stream) {
  if (!sound(st)) return MPTL_INVALID_VALUE;
  mptl_steps steps;
  builder b = builder_of(st, &steps, 0);
  add_value(&b, st->n - 1);
  if (b.failed) return MPTL_INVALID_VALUE;
  for (int j = 0; j < st->n && st->numel > 0; j++) {
    const mptl_cuda_op *op = &st->ops[j];
    if (op->kind != MPTL_CUDA_BATCHNORM) continue;
    int error =
        mptl_batchnorm_begin(&op->bn, &op->in[0], st->numel / st->c, st->c, st->train, vectors_of(st, j), partial_of(st), stream);
    if (error != 0) return error;
  }
  return run(&steps, stream);
}

/* ---- Backward ---- */

/* The step from the gradient of operator j's output, in hand, to that of its k-th input. */
static void add_gradient_step(builder *b, int j, int k) {
  const mptl_cuda_op *op = &b->stage->ops[j];
  mptl_step *s;
  switch (op->kind) {
    case MPTL_CUDA_BATCHNORM:
      s = add_step(b, MPTL_STEP_BATCHNORM_BACKWARD, &op->in[0], &op->dx[k], op->from[k] < 0);
      s->vectors = vectors_of(b->stage, j);
      break;
    case MPTL_CUDA_RELU:
      add_step(b, MPTL_STEP_RELU_BACKWARD, &op->out, &op->dx[k], op->from[k] < 0);
      break;
    case MPTL_CUDA_RELU6:
      add_step(b, MPTL_STEP_RELU6_BACKWARD, &op->out, &op->dx[k], op->from[k] < 0);
      break;
    case MPTL_CUDA_SIGMOID:
      add_step(b, MPTL_STEP_SIGMOID_BACKWARD, &op->out, &op->dx[k], op->from[k] < 0);
      break;
    case MPTL_CUDA_DROPOUT:
      s = add_step(b, MPTL_STEP_DROPOUT, NULL, &op->dx[k], op->from[k] < 0);
      set_dropout(s, op);
      break;
    case MPTL_CUDA_MUL:
      add_step(b, MPTL_STEP_MUL, &op->in[1 - k], &op->dx[k], op->from[k] < 0);
      break;
    default:
      add_step(b, MPTL_STEP_TAKE, NULL, &op->dx[k], op->from[k] < 0);
      break;
  }
}

/* Steps for all gradients that come of the one in hand, of operator j's output: first those that go to memory, then those within the
 * stage, the one that needs fewer registers first, because the gradient in hand waits for the other. */
static void add_gradients(builder *b, int j) {
  const mptl_cuda_op *op = &b->stage->ops[j];
  int inside[2], n = 0;
  for (int k = 0; k < op->n_in; k++) {
    if (op->dx[k].stats == NULL) continue;
    if (op->from[k] < 0)
      add_gradient_step(b, j, k);
    else
      inside[n++] = k;
  }
  if (n == 2 && registers(b->stage, op->from[inside[0]]) > registers(b->stage, op->from[inside[1]])) {
    inside[0] = 1;
    inside[1] = 0;
  }
  for (int k = 0; k < n; k++) {
    if (n == 2) b->flags |= k == 0 ? MPTL_STEP_PUSH : MPTL_STEP_POP;
    add_gradient_step(b, j, inside[k]);
    add_gradients(b, op->from[inside[k]]);
  }
}

/* Steps from the gradient in memory to that of operator j's output; false if it does not get there. */
static bool add_path(builder *b, int j) {
  if (j == b->stage->n - 1) {
    add_step(b, MPTL_STEP_LOAD, &b->stage->dy, NULL, false);
    return true;
  }
  for (int i = j + 1; i < b->stage->n; i++)
    for (int k = 0; k < b->stage->ops[i].n_in; k++) {
      if (b->stage->ops[i].from[k] != j) continue;
      if (b->stage->ops[i].dx[k].stats == NULL || !add_path(b, i)) return false;
      add_gradient_step(b, i, k);
    }
  return true;
}

int mptl_cuda_stage_backward(const mptl_cuda_stage *st, mptl_cuda_stream stream) {
  if (!sound(st) || !st->train) return MPTL_INVALID_VALUE;
  mptl_steps steps;
  for (int j = 0; j < st->n && st->numel > 0; j++) {
    const mptl_cuda_op *op = &st->ops[j];
    if (op->kind != MPTL_CUDA_BATCHNORM) continue;
    builder path = builder_of(st, &steps, st->c);
    if (!add_path(&path, j)) continue;
    if (path.failed) return MPTL_INVALID_VALUE;
    int error = mptl_batchnorm_backward_begin(&op->bn, &op->in[0], &steps, st->numel / st->c, st->c, vectors_of(st, j),
                                              partial_of(st), stream);
    if (error != 0) return error;
  }
  builder b = builder_of(st, &steps, 0);
  add_step(&b, MPTL_STEP_LOAD, &st->dy, NULL, false);
  add_gradients(&b, st->n - 1);
  return b.failed ? MPTL_INVALID_VALUE : steps.n == 1 ? 0 : run(&steps, stream);
}

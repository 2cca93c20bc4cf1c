/* Stages of pointwise operators: the steps of a stage, and the kernel that runs them over its elements in one pass. */
#include "kernels/cuda/paths.h"

#include <math.h>

/* ---- Running ---- */

/* What a block counts of a step that rounds, in shared memory: each thread's underflows and largest magnitude, and what is rare of all
 * threads together. */
typedef struct seen {
  uint32_t underflow[MPTL_THREADS], max[MPTL_THREADS], overflow, inf_in, nan_in;
} seen;

/* Adds a vector's counts to the thread's. */
MPTL_DEVICE void count(seen *s, const mptl_counts &c) {
  s->underflow[threadIdx.x] += c.underflow;
  if (c.max > s->max[threadIdx.x]) s->max[threadIdx.x] = c.max;
  if ((c.overflow | c.inf_in | c.nan_in) == 0) return;
  atomicAdd(&s->overflow, c.overflow);
  atomicAdd(&s->inf_in, c.inf_in);
  atomicAdd(&s->nan_in, c.nan_in);
}

/* Adds up what the threads have seen of a step; a warp calls. */
MPTL_DEVICE void add_seen(mptl_round_stats *stats, const seen *s) {
  uint32_t underflow = 0, max = 0;
  for (unsigned i = mptl_lane(); i < MPTL_THREADS; i += 32) {
    underflow += s->underflow[i];
    max = s->max[i] > max ? s->max[i] : max;
  }
  underflow = __reduce_add_sync(0xffffffffu, underflow);
  max = __reduce_max_sync(0xffffffffu, max);
  if (mptl_lane() != 0) return;
  mptl_add_u64(&stats->underflow, underflow);
  mptl_add_u64(&stats->overflow, s->overflow);
  mptl_add_u64(&stats->inf_in, s->inf_in);
  mptl_add_u64(&stats->nan_in, s->nan_in);
  if (max > 0) atomicMax((uint32_t *)&stats->max_abs, max);
}

/* The steps' counts and exponents are in shared memory, those first. */
template <bool PLAIN>
static __global__ void __launch_bounds__(MPTL_THREADS, PLAIN ? 4 : 2) steps_kernel(MPTL_PARAM mptl_steps steps) {
  MPTL_DYNAMIC_SHARED(seen, counts);
  uint32_t *exponents = (uint32_t *)(counts + steps.counted);
  for (unsigned i = threadIdx.x; i < steps.counted * sizeof(seen) / 4; i += MPTL_THREADS) ((uint32_t *)counts)[i] = 0;
  for (int j = 0; j < steps.n && !PLAIN; j++)
    if (steps.step[j].exponents >= 0) mptl_clear_exponents(exponents + steps.step[j].exponents * MPTL_EXPONENT_WORDS);
  __syncthreads();
  size_t turn = mptl_warp_step(), at = mptl_warp_begin();
  uint32_t channel = (uint32_t)((at + mptl_lane() * MPTL_WIDE) % steps.c), further = (uint32_t)(turn % steps.c);
  for (; at < steps.numel; at += turn) {
    size_t i = at + mptl_lane() * MPTL_WIDE;
    unsigned here = PLAIN ? (unsigned)MPTL_WIDE : mptl_count_at(i, steps.numel);
    if (PLAIN && i >= steps.numel) break;
    mptl_stack stack = mptl_no_stack();
#pragma unroll 1
    for (int j = 0; j < steps.n; j++) {
      const mptl_step &s = steps.step[j];
      float r[MPTL_WIDE];
      bool within = false;
      mptl_before_step(s.flags, &stack);
      mptl_compute_step<PLAIN>(r, s.code, s.flags, s, &stack, i, here, channel, steps.c, true);
      if (!PLAIN && s.exponents >= 0) mptl_count_exponents_wide(exponents + s.exponents * MPTL_EXPONENT_WORDS, r, here);
      if (s.counted >= 0) {
        mptl_counts c = mptl_no_counts();
        within = mptl_round_wide<PLAIN>(r, here, s.sink, i, &c);
        count(&counts[s.counted], c);
      }
      if (s.flags & MPTL_STEP_STORE)
        mptl_write_wide<PLAIN>(s.sink, i, here, r, within);
      else
        mptl_copy_wide(stack.top, r);
    }
    channel += further;
    if (channel >= steps.c) channel -= steps.c;
  }
  __syncthreads();
  for (int j = (int)(threadIdx.x / 32); j < steps.n; j += MPTL_WARPS) {
    const mptl_step &s = steps.step[j];
    if (s.sink.stats == NULL) continue;
    if (s.counted >= 0) add_seen(s.sink.stats, &counts[s.counted]);
    if (blockIdx.x == 0 && mptl_lane() == 0) mptl_add_u64(&s.sink.stats->elements, steps.numel);
  }
  for (int j = 0; j < steps.n && !PLAIN; j++)
    if (steps.step[j].exponents >= 0)
      mptl_add_exponents(steps.step[j].sink.exponents, exponents + steps.step[j].exponents * MPTL_EXPONENT_WORDS);
}

/* Whether plain kernels have a step's code. */
static bool is_plain(unsigned code) {
  switch (code) {
    case MPTL_STEP_INPUT:
    case MPTL_STEP_DROPOUT:
      return false;
#define UNARY_IS_PLAIN(name, NAME, traits) \
  case MPTL_STEP_##NAME:                   \
  case MPTL_STEP_##NAME##_BACKWARD:        \
    return (MPTL_CHEAP & (traits)) != 0;
      MPTL_UNARY_OPERATORS(UNARY_IS_PLAIN)
#undef UNARY_IS_PLAIN
    default:
      return true;
  }
}

bool mptl_are_plain(const mptl_steps *steps) {
  if (steps->numel % MPTL_WIDE != 0 || steps->c % MPTL_WIDE != 0) return false;
  for (int j = 0; j < steps->n; j++) {
    const mptl_step *s = &steps->step[j];
    if (!is_plain(s->code)) return false;
    if (((s->flags & MPTL_STEP_READ) && !mptl_is_plain(&s->source)) || !mptl_is_plain(&s->sink)) return false;
  }
  return true;
}

static int run(mptl_steps *steps, mptl_cuda_stream stream) {
  int exponents = 0;
  steps->counted = 0;
  for (int j = 0; j < steps->n; j++) {
    mptl_step *s = &steps->step[j];
    s->exponents = s->sink.exponents != NULL ? (int8_t)exponents++ : (int8_t)-1;
    s->counted = s->sink.grid.way != MPTL_ROUND_NOT ? (int8_t)steps->counted++ : (int8_t)-1;
  }
  if (steps->n == 0 || steps->numel == 0) return 0;
  size_t shared = steps->counted * sizeof(seen) + (size_t)exponents * MPTL_EXPONENT_WORDS * sizeof(uint32_t);
  bool plain = mptl_are_plain(steps);
  mptl_path_kernel *path = plain ? mptl_find_path(steps) : NULL;
  if (path != NULL) {
    MPTL_LAUNCH(path, mptl_blocks(mptl_vectors(steps->numel)), MPTL_THREADS, 0, stream)(*steps);
    return mptl_launched();
  }
  auto kernel = plain ? steps_kernel<true> : steps_kernel<false>;
  int error = mptl_allow_shared(kernel, shared);
  if (error != 0) return error;
  MPTL_LAUNCH(kernel, mptl_blocks(mptl_vectors(steps->numel)), MPTL_THREADS, shared, stream)(*steps);
  return mptl_launched();
}

/* ---- Steps of a stage ---- */

/* A list under construction. Steps get their flags when they are added; `flags` go to the next one. */
typedef struct builder {
  const mptl_cuda_stage *stage;
  mptl_steps *steps;
  uint8_t flags;
  bool failed;    /* too many steps */
  size_t pitch;   /* of vectors: 0, or the channels where each row is by itself */
  mptl_grid hand; /* the grid that the value in hand is on; way MPTL_ROUND_NOT: any value */
} builder;

static builder builder_of(const mptl_cuda_stage *stage, mptl_steps *steps, size_t pitch) {
  builder b;
  memset(&b, 0, sizeof b);
  memset(steps, 0, sizeof *steps);
  b.stage = stage, b.steps = steps, b.pitch = pitch;
  steps->c = (uint32_t)stage->c;
  steps->numel = stage->numel;
  return b;
}

/* Whether a step's result is the value in hand, or 0. */
static bool keeps(mptl_step_code code) {
  switch (code) {
#define UNARY_KEEPS(name, NAME, traits)    \
  case MPTL_STEP_##NAME:                   \
    return (MPTL_SELECTS & (traits)) != 0; \
  case MPTL_STEP_##NAME##_BACKWARD:        \
    return (MPTL_BACKWARD_SELECTS & (traits)) != 0;
    MPTL_UNARY_OPERATORS(UNARY_KEEPS)
#undef UNARY_KEEPS
    default:
      return code == MPTL_STEP_TAKE;
  }
}

/* The grid of values in memory: none of numbers in binary32, which may be sums. */
static mptl_grid grid_in_memory(const mptl_source_arg *s) {
  return s->as == MPTL_AS_CODE8 || s->as == MPTL_AS_CODE16 ? s->grid : mptl_grid_of(NULL);
}

/* store: the result goes to the sink's memory, else it is only rounded as the sink says. A result that is on the sink's grid already is
 * looked at, for its counts, but not rounded. */
static mptl_step *add_step(builder *b, mptl_step_code code, const mptl_source *source, const mptl_sink *sink, bool store) {
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
  if (code == MPTL_STEP_LOAD) b->hand = grid_in_memory(&s->source);
  if (sink == NULL) return s;
  s->sink = mptl_sink_of(sink, b->pitch);
  if (store) s->flags |= MPTL_STEP_STORE;
  bool kept = keeps(code) && mptl_same_grid(&b->hand, &s->sink.grid);
  if (!store && !(keeps(code) && s->sink.grid.way == MPTL_ROUND_NOT)) b->hand = s->sink.grid;
  if (kept) s->sink.grid.way = MPTL_ROUND_KEEP;
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

static bool binary(const mptl_cuda_op *op) { return op->id == MPTL_OP_ADD || op->id == MPTL_OP_MUL; }

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
    if (st->train && op->id == MPTL_OP_BATCHNORM2D && op->from[0] >= 0) return false;
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
  switch (op->id) {
    case MPTL_OP_BATCHNORM2D:
      return MPTL_STEP_BATCHNORM;
#define UNARY_CODE(name, NAME, traits) \
  case MPTL_OP_##NAME:                 \
    return MPTL_STEP_##NAME;
      MPTL_UNARY_OPERATORS(UNARY_CODE)
#undef UNARY_CODE
    case MPTL_OP_DROPOUT:
      return train ? MPTL_STEP_DROPOUT : MPTL_STEP_TAKE;
    case MPTL_OP_ADD:
      return MPTL_STEP_ADD;
    case MPTL_OP_MUL:
      return MPTL_STEP_MUL;
    default:
      return MPTL_STEP_TAKE;
  }
}

/* Steps that end with operator j's output in hand, or in memory. */
static void add_value(builder *b, int j) {
  const mptl_cuda_op *op = &b->stage->ops[j];
  const mptl_source *second = NULL;
  bool last = j == b->stage->n - 1;
  if (op->id == MPTL_OP_INPUT) {
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
  if (op->id == MPTL_OP_BATCHNORM2D) s->vectors = vectors_of(b->stage, j);
  if (op->id == MPTL_OP_DROPOUT) set_dropout(s, op);
}

int mptl_cuda_stage_forward(const mptl_cuda_stage *st, mptl_cuda_stream stream) {
  if (!sound(st)) return MPTL_INVALID_VALUE;
  mptl_steps steps;
  builder b = builder_of(st, &steps, 0);
  add_value(&b, st->n - 1);
  if (b.failed) return MPTL_INVALID_VALUE;
  for (int j = 0; j < st->n && st->numel > 0; j++) {
    const mptl_cuda_op *op = &st->ops[j];
    if (op->id != MPTL_OP_BATCHNORM2D) continue;
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
  switch (op->id) {
    case MPTL_OP_BATCHNORM2D:
      s = add_step(b, MPTL_STEP_BATCHNORM_BACKWARD, &op->in[0], &op->dx[k], op->from[k] < 0);
      s->vectors = vectors_of(b->stage, j);
      break;
#define UNARY_GRADIENT(name, NAME, traits)                                                                                     \
  case MPTL_OP_##NAME:                                                                                                         \
    add_step(b, MPTL_STEP_##NAME##_BACKWARD, (MPTL_READS_IN & (traits)) ? &op->in[0] : &op->out, &op->dx[k], op->from[k] < 0); \
    break;
      MPTL_UNARY_OPERATORS(UNARY_GRADIENT)
#undef UNARY_GRADIENT
    case MPTL_OP_DROPOUT:
      s = add_step(b, MPTL_STEP_DROPOUT, NULL, &op->dx[k], op->from[k] < 0);
      set_dropout(s, op);
      break;
    case MPTL_OP_MUL:
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
    if (!op->dx[k].wanted) continue;
    if (op->from[k] < 0)
      add_gradient_step(b, j, k);
    else
      inside[n++] = k;
  }
  if (n == 2 && registers(b->stage, op->from[inside[0]]) > registers(b->stage, op->from[inside[1]])) {
    inside[0] = 1;
    inside[1] = 0;
  }
  const mptl_grid hand = b->hand;
  for (int k = 0; k < n; k++) {
    if (n == 2) b->flags |= k == 0 ? MPTL_STEP_PUSH : MPTL_STEP_POP;
    b->hand = hand;
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
      if (!b->stage->ops[i].dx[k].wanted || !add_path(b, i)) return false;
      add_gradient_step(b, i, k);
    }
  return true;
}

int mptl_cuda_stage_backward(const mptl_cuda_stage *st, mptl_cuda_stream stream) {
  if (!sound(st) || !st->train) return MPTL_INVALID_VALUE;
  mptl_steps steps;
  for (int j = 0; j < st->n && st->numel > 0; j++) {
    const mptl_cuda_op *op = &st->ops[j];
    if (op->id != MPTL_OP_BATCHNORM2D) continue;
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

/* Stages of pointwise operators: makes the instructions of a stage, and runs them in one traversal
 * of its elements. */
#include "kernels/cuda/specialised.h"

#include <math.h>

/* ---- Running ---- */

/* A block's counts for an instruction that rounds, in shared memory: underflows and the largest
 * magnitude by thread, rare events for all threads together. */
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

/* Adds the block's counts for an instruction to a tensor's statistics. All lanes of one warp
 * call. */
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

/* Runs any list. Shared memory holds the instructions' counts of rounding, then their exponent
 * counts. */
template <bool PLAIN>
static __global__ void __launch_bounds__(MPTL_THREADS, PLAIN ? 4 : 2)
    stage_kernel(MPTL_PARAM mptl_instruction_list list) {
  MPTL_DYNAMIC_SHARED(seen, counts);
  uint32_t *exponents = (uint32_t *)(counts + list.counted);
  for (unsigned i = threadIdx.x; i < list.counted * sizeof(seen) / 4; i += MPTL_THREADS)
    ((uint32_t *)counts)[i] = 0;
  for (int j = 0; j < list.n && !PLAIN; j++)
    if (list.at[j].exponents >= 0)
      mptl_clear_exponents(exponents + list.at[j].exponents * MPTL_EXPONENT_WORDS);
  __syncthreads();
  size_t stride = mptl_warp_stride(), at = mptl_warp_begin();
  uint32_t channel = (uint32_t)((at + mptl_lane() * MPTL_WIDE) % list.c),
           further = (uint32_t)(stride % list.c);
  for (; at < list.numel; at += stride) {
    size_t i = at + mptl_lane() * MPTL_WIDE;
    unsigned here = PLAIN ? (unsigned)MPTL_WIDE : mptl_count_at(i, list.numel);
    if (PLAIN && i >= list.numel) break;
    mptl_stack stack = mptl_no_stack();
#pragma unroll 1
    for (int j = 0; j < list.n; j++) {
      const mptl_instruction &s = list.at[j];
      float r[MPTL_WIDE];
      bool within = false;
      mptl_move_stack(s.flags, &stack);
      mptl_compute_instruction<PLAIN>(r, s.opcode, s.flags, s, &stack, i, here, channel, list.c,
                                      true);
      if (!PLAIN && s.exponents >= 0)
        mptl_count_exponents_wide(exponents + s.exponents * MPTL_EXPONENT_WORDS, r, here);
      if (s.counted >= 0) {
        mptl_counts c = mptl_no_counts();
        within = mptl_round_wide<PLAIN>(r, here, s.sink, i, &c);
        count(&counts[s.counted], c);
      }
      if (s.flags & MPTL_INS_STORE)
        mptl_write_wide<PLAIN>(s.sink, i, here, r, within);
      else
        mptl_copy_wide(stack.top, r);
    }
    channel += further;
    if (channel >= list.c) channel -= list.c;
  }
  __syncthreads();
  for (int j = (int)(threadIdx.x / 32); j < list.n; j += MPTL_WARPS) {
    const mptl_instruction &s = list.at[j];
    if (s.sink.stats == NULL) continue;
    if (s.counted >= 0) add_seen(s.sink.stats, &counts[s.counted]);
    if (blockIdx.x == 0 && mptl_lane() == 0) mptl_add_u64(&s.sink.stats->elements, list.numel);
  }
  for (int j = 0; j < list.n && !PLAIN; j++)
    if (list.at[j].exponents >= 0)
      mptl_add_exponents(list.at[j].sink.exponents,
                         exponents + list.at[j].exponents * MPTL_EXPONENT_WORDS);
}

/* Whether plain kernels have the opcode. */
static bool is_plain(unsigned opcode) {
  switch (opcode) {
    case MPTL_INS_INPUT:
    case MPTL_INS_DROPOUT:
      return false;
#define UNARY_IS_PLAIN(name, NAME, traits) \
  case MPTL_INS_##NAME:                    \
  case MPTL_INS_##NAME##_BACKWARD:         \
    return (MPTL_CHEAP & (traits)) != 0;
      MPTL_UNARY_OPERATORS(UNARY_IS_PLAIN)
#undef UNARY_IS_PLAIN
    default:
      return true;
  }
}

bool mptl_are_plain(const mptl_instruction_list *list) {
  if (list->numel % MPTL_WIDE != 0 || list->c % MPTL_WIDE != 0) return false;
  for (int j = 0; j < list->n; j++) {
    const mptl_instruction *s = &list->at[j];
    if (!is_plain(s->opcode)) return false;
    if (((s->flags & MPTL_INS_READ) && !mptl_is_plain(&s->source)) || !mptl_is_plain(&s->sink))
      return false;
  }
  return true;
}

static int run(mptl_instruction_list *list, mptl_cuda_stream stream) {
  int exponents = 0;
  list->counted = 0;
  for (int j = 0; j < list->n; j++) {
    mptl_instruction *s = &list->at[j];
    s->exponents = s->sink.exponents != NULL ? (int8_t)exponents++ : (int8_t)-1;
    s->counted = s->sink.grid.way != MPTL_ROUND_NOT ? (int8_t)list->counted++ : (int8_t)-1;
  }
  if (list->n == 0 || list->numel == 0) return 0;
  size_t shared =
      list->counted * sizeof(seen) + (size_t)exponents * MPTL_EXPONENT_WORDS * sizeof(uint32_t);
  bool plain = mptl_are_plain(list);
  mptl_specialised_kernel *specialised = plain ? mptl_find_specialised(list) : NULL;
  if (specialised != NULL) {
    MPTL_LAUNCH(specialised, mptl_blocks(mptl_vectors(list->numel)), MPTL_THREADS, 0, stream)
    (*list);
    return mptl_launched();
  }
  auto kernel = plain ? stage_kernel<true> : stage_kernel<false>;
  int error = mptl_allow_shared(kernel, shared);
  if (error != 0) return error;
  MPTL_LAUNCH(kernel, mptl_blocks(mptl_vectors(list->numel)), MPTL_THREADS, shared, stream)(*list);
  return mptl_launched();
}

/* ---- The instructions of a stage ---- */

/* A list under construction. */
typedef struct builder {
  const mptl_cuda_stage *stage;
  mptl_instruction_list *list;
  uint8_t flags; /* of the next instruction */
  bool failed;   /* there are too many instructions */
  size_t pitch;  /* of operands (mptl_source_of): 0, or the channels if vectors end with rows */
  mptl_grid top_grid; /* the grid of top's values; MPTL_ROUND_NOT: they may be any values */
} builder;

static builder builder_of(const mptl_cuda_stage *stage, mptl_instruction_list *list, size_t pitch) {
  builder b;
  memset(&b, 0, sizeof b);
  memset(list, 0, sizeof *list);
  b.stage = stage, b.list = list, b.pitch = pitch;
  list->c = (uint32_t)stage->c;
  list->numel = stage->numel;
  return b;
}

/* Whether each element of the result is the element of top, or 0. */
static bool keeps(mptl_opcode opcode) {
  switch (opcode) {
#define UNARY_KEEPS(name, NAME, traits)    \
  case MPTL_INS_##NAME:                    \
    return (MPTL_SELECTS & (traits)) != 0; \
  case MPTL_INS_##NAME##_BACKWARD:         \
    return (MPTL_BACKWARD_SELECTS & (traits)) != 0;
    MPTL_UNARY_OPERATORS(UNARY_KEEPS)
#undef UNARY_KEEPS
    default:
      return opcode == MPTL_INS_TAKE;
  }
}

/* The grid of values in memory. Binary32 has none: the values may be sums. */
static mptl_grid grid_in_memory(const mptl_source_arg *s) {
  return s->as == MPTL_AS_CODE8 || s->as == MPTL_AS_CODE16 ? s->grid : mptl_grid_of(NULL);
}

/* Adds an instruction. source: NULL: it reads nothing. sink: how the result is rounded and counted;
 * NULL: it is not. store: the result is also written to the sink's memory. A result that is on the
 * sink's grid already is counted, but not rounded again. */
static mptl_instruction *add_instruction(builder *b, mptl_opcode opcode, const mptl_source *source,
                                         const mptl_sink *sink, bool store) {
  if (b->list->n == MPTL_MOST_INSTRUCTIONS) {
    b->failed = true;
    return &b->list->at[MPTL_MOST_INSTRUCTIONS - 1];
  }
  mptl_instruction *s = &b->list->at[b->list->n++];
  s->opcode = (uint8_t)opcode;
  s->flags = b->flags;
  b->flags = 0;
  if (source != NULL) {
    s->source = mptl_source_of(source, b->pitch);
    s->flags |= MPTL_INS_READ;
  }
  if (opcode == MPTL_INS_LOAD) b->top_grid = grid_in_memory(&s->source);
  if (sink == NULL) return s;
  s->sink = mptl_sink_of(sink, b->pitch);
  if (store) s->flags |= MPTL_INS_STORE;
  bool kept = keeps(opcode) && mptl_same_grid(&b->top_grid, &s->sink.grid);
  if (!store && !(keeps(opcode) && s->sink.grid.way == MPTL_ROUND_NOT)) b->top_grid = s->sink.grid;
  if (kept) s->sink.grid.way = MPTL_ROUND_KEEP;
  return s;
}

/* The stage's scratch memory: the vectors of each operator, of which only batch norms use theirs,
 * then the partial sums. */
static size_t vectors_bytes(const mptl_cuda_stage *st) {
  return MPTL_VECTORS * (size_t)mptl_padded((uint32_t)st->c) * sizeof(float);
}
static size_t partial_bytes(const mptl_cuda_stage *st) {
  return (mptl_sums_bytes(st->numel / st->c, st->c) + 15) / 16 * 16;
}
static float *vectors_of(const mptl_cuda_stage *st, int j) {
  return (float *)((char *)st->scratch + (size_t)j * vectors_bytes(st));
}
static void *partial_of(const mptl_cuda_stage *st) {
  return (char *)st->scratch + (size_t)st->n * vectors_bytes(st);
}

size_t mptl_cuda_stage_scratch(const mptl_cuda_stage *st) {
  if (st->c == 0) return 0;
  return (size_t)st->n * vectors_bytes(st) + partial_bytes(st);
}

/* Threshold and factor as dropout_f32 of kernels/cpu computes them from p. */
static void set_dropout(mptl_instruction *s, const mptl_cuda_op *op) {
  s->mask = op->mask;
  s->below = (uint32_t)ceil(op->p * 0x1p24);
  s->factor = op->p < 1.0 ? (float)(1.0 / (1.0 - op->p)) : 0.0f;
}

static bool binary(const mptl_cuda_op *op) {
  return op->id == MPTL_OP_ADD || op->id == MPTL_OP_MUL;
}

/* The vectors of the stack that operator j and the operators below it need. The stack has three: a
 * tree of MPTL_CUDA_STAGE_OPS operators needs no more. */
static int registers(const mptl_cuda_stage *st, int j) {
  const mptl_cuda_op *op = &st->ops[j];
  int need[2] = {1, 1};
  for (int k = 0; k < op->n_in && k < 2; k++)
    if (op->from[k] >= 0) need[k] = registers(st, op->from[k]);
  if (op->n_in < 2 || op->from[0] < 0 || op->from[1] < 0)
    return need[0] > need[1] ? need[0] : need[1];
  return need[0] == need[1] ? need[0] + 1 : need[0] > need[1] ? need[0] : need[1];
}

/* Whether a stage is a tree in order: each operator has its inputs before it and, except for the
 * last, exactly one reader. */
static bool sound(const mptl_cuda_stage *st) {
  if (st->n < 1 || st->n > MPTL_CUDA_STAGE_OPS || st->c == 0 || st->c > UINT32_MAX / 2 ||
      st->numel % st->c != 0)
    return false;
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

/* Adds instructions after which top is the k-th input of an operator. */
static void add_operand(builder *b, const mptl_cuda_op *op, int k) {
  if (op->from[k] >= 0)
    add_value(b, op->from[k]);
  else
    add_instruction(b, MPTL_INS_LOAD, &op->in[k], NULL, false);
}

static mptl_opcode forward_opcode(const mptl_cuda_op *op, bool train) {
  switch (op->id) {
    case MPTL_OP_BATCHNORM2D:
      return MPTL_INS_BATCHNORM;
#define UNARY_OPCODE(name, NAME, traits) \
  case MPTL_OP_##NAME:                   \
    return MPTL_INS_##NAME;
      MPTL_UNARY_OPERATORS(UNARY_OPCODE)
#undef UNARY_OPCODE
    case MPTL_OP_DROPOUT:
      return train ? MPTL_INS_DROPOUT : MPTL_INS_TAKE;
    case MPTL_OP_ADD:
      return MPTL_INS_ADD;
    case MPTL_OP_MUL:
      return MPTL_INS_MUL;
    default:
      return MPTL_INS_TAKE;
  }
}

/* Adds instructions after which top is the output of operator j. The output of the last operator is
 * written to memory. */
static void add_value(builder *b, int j) {
  const mptl_cuda_op *op = &b->stage->ops[j];
  const mptl_source *second = NULL;
  bool last = j == b->stage->n - 1;
  if (op->id == MPTL_OP_INPUT) {
    add_instruction(b, MPTL_INS_INPUT, &op->in[0], &op->y, last)->valid = op->valid;
    return;
  }
  if (!binary(op)) {
    add_operand(b, op, 0);
  } else {
    int first = op->from[0] < 0 || (op->from[1] >= 0 && registers(b->stage, op->from[1]) >
                                                            registers(b->stage, op->from[0]));
    if (op->from[first] < 0) first = 0; /* both in memory */
    add_operand(b, op, first);
    if (op->from[1 - first] < 0) {
      second = &op->in[1 - first];
    } else {
      b->flags |= MPTL_INS_PUSH;
      add_operand(b, op, 1 - first);
    }
  }
  mptl_instruction *s =
      add_instruction(b, forward_opcode(op, b->stage->train), second, &op->y, last);
  if (op->id == MPTL_OP_BATCHNORM2D) s->vectors = vectors_of(b->stage, j);
  if (op->id == MPTL_OP_DROPOUT) set_dropout(s, op);
}

int mptl_cuda_stage_forward(const mptl_cuda_stage *st, mptl_cuda_stream stream) {
  if (!sound(st)) return MPTL_INVALID_VALUE;
  mptl_instruction_list list;
  builder b = builder_of(st, &list, 0);
  add_value(&b, st->n - 1);
  if (b.failed) return MPTL_INVALID_VALUE;
  for (int j = 0; j < st->n && st->numel > 0; j++) {
    const mptl_cuda_op *op = &st->ops[j];
    if (op->id != MPTL_OP_BATCHNORM2D) continue;
    int error = mptl_batchnorm_begin(&op->bn, &op->in[0], st->numel / st->c, st->c, st->train,
                                     vectors_of(st, j), partial_of(st), stream);
    if (error != 0) return error;
  }
  return run(&list, stream);
}

/* ---- Backward ---- */

/* Adds the instruction that computes the gradient of operator j's k-th input from the gradient of
 * its output, which is top. */
static void add_input_gradient(builder *b, int j, int k) {
  const mptl_cuda_op *op = &b->stage->ops[j];
  mptl_instruction *s;
  switch (op->id) {
    case MPTL_OP_BATCHNORM2D:
      s = add_instruction(b, MPTL_INS_BATCHNORM_BACKWARD, &op->in[0], &op->dx[k], op->from[k] < 0);
      s->vectors = vectors_of(b->stage, j);
      break;
#define UNARY_GRADIENT(name, NAME, traits)                                          \
  case MPTL_OP_##NAME:                                                              \
    add_instruction(b, MPTL_INS_##NAME##_BACKWARD,                                  \
                    (MPTL_READS_IN & (traits)) ? &op->in[0] : &op->out, &op->dx[k], \
                    op->from[k] < 0);                                               \
    break;
      MPTL_UNARY_OPERATORS(UNARY_GRADIENT)
#undef UNARY_GRADIENT
    case MPTL_OP_DROPOUT:
      s = add_instruction(b, MPTL_INS_DROPOUT, NULL, &op->dx[k], op->from[k] < 0);
      set_dropout(s, op);
      break;
    case MPTL_OP_MUL:
      add_instruction(b, MPTL_INS_MUL, &op->in[1 - k], &op->dx[k], op->from[k] < 0);
      break;
    default:
      add_instruction(b, MPTL_INS_TAKE, NULL, &op->dx[k], op->from[k] < 0);
      break;
  }
}

/* Adds instructions for all gradients that depend on the gradient of operator j's output, which is
 * top: first the gradients that go to memory, then the branches within the stage. Of two branches,
 * the one that needs fewer vectors comes first, because top waits on the stack meanwhile. */
static void add_gradients(builder *b, int j) {
  const mptl_cuda_op *op = &b->stage->ops[j];
  int inside[2], n = 0;
  for (int k = 0; k < op->n_in; k++) {
    if (!op->dx[k].wanted) continue;
    if (op->from[k] < 0)
      add_input_gradient(b, j, k);
    else
      inside[n++] = k;
  }
  if (n == 2 &&
      registers(b->stage, op->from[inside[0]]) > registers(b->stage, op->from[inside[1]])) {
    inside[0] = 1;
    inside[1] = 0;
  }
  const mptl_grid top_grid = b->top_grid;
  for (int k = 0; k < n; k++) {
    if (n == 2) b->flags |= k == 0 ? MPTL_INS_PUSH : MPTL_INS_POP;
    b->top_grid = top_grid;
    add_input_gradient(b, j, inside[k]);
    add_gradients(b, op->from[inside[k]]);
  }
}

/* Adds instructions that compute the gradient of operator j's output from the stage's gradient in
 * memory. Returns false if it is not computed: an operator in between does not want it. */
static bool add_output_gradient(builder *b, int j) {
  if (j == b->stage->n - 1) {
    add_instruction(b, MPTL_INS_LOAD, &b->stage->dy, NULL, false);
    return true;
  }
  for (int i = j + 1; i < b->stage->n; i++)
    for (int k = 0; k < b->stage->ops[i].n_in; k++) {
      if (b->stage->ops[i].from[k] != j) continue;
      if (!b->stage->ops[i].dx[k].wanted || !add_output_gradient(b, i)) return false;
      add_input_gradient(b, i, k);
    }
  return true;
}

int mptl_cuda_stage_backward(const mptl_cuda_stage *st, mptl_cuda_stream stream) {
  if (!sound(st) || !st->train) return MPTL_INVALID_VALUE;
  mptl_instruction_list list;
  for (int j = 0; j < st->n && st->numel > 0; j++) {
    const mptl_cuda_op *op = &st->ops[j];
    if (op->id != MPTL_OP_BATCHNORM2D) continue;
    builder to_norm = builder_of(st, &list, st->c);
    if (!add_output_gradient(&to_norm, j)) continue;
    if (to_norm.failed) return MPTL_INVALID_VALUE;
    int error = mptl_batchnorm_backward_begin(&op->bn, &op->in[0], &list, st->numel / st->c, st->c,
                                              vectors_of(st, j), partial_of(st), stream);
    if (error != 0) return error;
  }
  builder b = builder_of(st, &list, 0);
  add_instruction(&b, MPTL_INS_LOAD, &st->dy, NULL, false);
  add_gradients(&b, st->n - 1);
  return b.failed ? MPTL_INVALID_VALUE : list.n == 1 ? 0 : run(&list, stream);
}

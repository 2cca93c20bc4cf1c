/* A stage of pointwise operators as its kernels run it: a list of steps over three registers of eight elements.
 *
 * A stage is a tree, forward as well as backward, so its operators can be put in an order in which every result is taken up by the next step
 * or waits on a small stack. Most of a step is the same for all threads: which operation, which operands; only the elements differ.
 */
#ifndef MPTL_KERNELS_CUDA_STAGE_H
#define MPTL_KERNELS_CUDA_STAGE_H

#include "kernels/cuda/values.h"
#include "kernels/pointwise.h"

/* What a step computes, of top, the value in hand, and x, what it reads. Codes of paths (paths.h) are less than 16. */
enum mptl_step_code {
  MPTL_STEP_TAKE,  /* top */
  MPTL_STEP_LOAD,  /* x */
  MPTL_STEP_INPUT, /* x, 0 from element `valid` on */
  MPTL_STEP_BATCHNORM,
  MPTL_STEP_DROPOUT,
  MPTL_STEP_ADD, /* top and x, or top and the value below it */
  MPTL_STEP_MUL,
  MPTL_STEP_BATCHNORM_BACKWARD,                                                             /* x is the input */
#define MPTL_UNARY_CODES(name, NAME, traits) MPTL_STEP_##NAME, MPTL_STEP_##NAME##_BACKWARD, /* x is what backward reads */
  MPTL_UNARY_OPERATORS(MPTL_UNARY_CODES)
#undef MPTL_UNARY_CODES
};

enum {
  MPTL_STEP_POP = 1,   /* first: what is below top becomes top */
  MPTL_STEP_PUSH = 2,  /* first: top is kept below */
  MPTL_STEP_READ = 4,  /* reads x */
  MPTL_STEP_STORE = 8, /* the result goes to memory and top stays; otherwise it becomes top */
};

typedef struct mptl_step {
  uint8_t code, flags;
  int8_t exponents;     /* which of the block's counts of exponents; -1: none */
  int8_t counted;       /* which of the block's counts of rounding; -1: it does not round */
  uint32_t below;       /* dropout: words whose upper 24 bits are below are dropped */
  float factor;         /* dropout: of what is kept */
  mptl_key mask;        /* dropout */
  size_t valid;         /* input */
  const float *vectors; /* batch norm: by channel, each mptl_padded(c) long: see sums.cu */
  mptl_source_arg source;
  mptl_sink_arg sink; /* the result's: rounded; grid.way MPTL_ROUND_NOT and no counts for what is only read */
} mptl_step;

enum { MPTL_STEPS = 20 }; /* as many as MPTL_CUDA_STAGE_OPS take: each operator and each operand or gradient in memory one */

typedef struct mptl_steps {
  int n;
  uint32_t counted; /* steps that round */
  uint32_t c;       /* channels */
  size_t numel;
  mptl_step step[MPTL_STEPS];
} mptl_steps;

/* Whether the plain kernels can run them (values.h). */
bool mptl_are_plain(const mptl_steps *steps);

static inline __host__ __device__ uint32_t mptl_padded(uint32_t c) { return (c + MPTL_WIDE - 1) / MPTL_WIDE * MPTL_WIDE; }

/* ---- Sums by channel (sums.cu) ---- */

/* Vectors by channel that a batch norm's steps read. */
enum { MPTL_SCALE, MPTL_SHIFT, MPTL_MEAN, MPTL_A, MPTL_B, MPTL_VECTORS };

/* Bytes of partial sums of [rows][c]. */
size_t mptl_sums_bytes(size_t rows, size_t c);

/* Adds up, around the first row's values, x and its squares by channel; then sets a batch norm's mean, inv_std, running statistics and
 * vectors. In evaluation the vectors only. */
int mptl_batchnorm_begin(const mptl_cuda_batchnorm *bn, const mptl_source *x, size_t rows, size_t c, bool train, float *vectors,
                         void *partial, mptl_cuda_stream stream);

/* The same for the gradient that comes out of the steps: its sum and that of its product with x - mean; then dgamma, dbeta and vectors. */
int mptl_batchnorm_backward_begin(const mptl_cuda_batchnorm *bn, const mptl_source *x, const mptl_steps *steps, size_t rows,
                                  size_t c, float *vectors, void *partial, mptl_cuda_stream stream);

/* ---- Running steps ---- */

/* Eight elements of a vector by channel; the first element is channel `channel` of c. */
template <bool PLAIN>
MPTL_DEVICE void mptl_read_vector(float *v, const float *vector, uint32_t channel, uint32_t c) {
  if (PLAIN || c % MPTL_WIDE == 0) {
    mptl_read_floats(v, vector + channel, MPTL_WIDE, 16);
  } else {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) {
      v[k] = vector[channel];
      channel = channel + 1 == c ? 0 : channel + 1;
    }
  }
}

MPTL_DEVICE void mptl_copy_wide(float *to, const float *from) {
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) to[k] = from[k];
}

/* The registers: top, and what waits below it. */
typedef struct mptl_stack {
  float top[MPTL_WIDE], second[MPTL_WIDE], third[MPTL_WIDE];
} mptl_stack;

MPTL_DEVICE mptl_stack mptl_no_stack(void) {
  mptl_stack s;
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) s.top[k] = s.second[k] = s.third[k] = 0.0f;
  return s;
}

MPTL_DEVICE void mptl_drop_second(mptl_stack *s) { mptl_copy_wide(s->second, s->third); }

#define MPTL_EACH(expression) _Pragma("unroll") for (int k = 0; k < MPTL_WIDE; k++) r[k] = (expression)

/* Dropout, which plain kernels do without. */
MPTL_DEVICE void mptl_drop(float *r, const mptl_step &s, const float *top, size_t i, bool in_line) {
  uint32_t words[MPTL_WIDE];
  if (in_line)
    mptl_random_wide(words, s.mask, i);
  else
    for (unsigned k = 0; k < MPTL_WIDE; k++) words[k] = mptl_random_u32(s.mask, i + k, 0);
  MPTL_EACH(words[k] >> 8 >= s.below ? top[k] * s.factor : 0.0f);
}

/* The steps of an operator of kernels/pointwise.h. Plain kernels never get those that are not cheap. */
#define MPTL_UNARY_CASES(name, NAME, traits)                                                          \
  case MPTL_STEP_##NAME:                                                                              \
    MPTL_EACH(PLAIN && (MPTL_CHEAP & (traits)) == 0 ? top[k] : mptl_##name(top[k]));                  \
    break;                                                                                            \
  case MPTL_STEP_##NAME##_BACKWARD:                                                                   \
    MPTL_EACH(PLAIN && (MPTL_CHEAP & (traits)) == 0 ? top[k] : mptl_##name##_backward(top[k], x[k])); \
    break;

/* One step's result r, not rounded yet, of elements [i, i + n); the first is of channel `channel`.
 * code and flags are the step's. in_line: vectors of a warp follow each other. */
template <bool PLAIN>
MPTL_DEVICE void mptl_compute_step(float *r, unsigned code, unsigned flags, const mptl_step &s, mptl_stack *stack, size_t i,
                                   unsigned n, uint32_t channel, uint32_t c, bool in_line) {
  float x[MPTL_WIDE];
  float *top = stack->top;
  if (flags & MPTL_STEP_READ) {
    unsigned readable = !PLAIN && code == MPTL_STEP_INPUT ? mptl_count_at(i, s.valid) : n;
    mptl_read_wide<PLAIN>(x, s.source, i, readable < n ? readable : n);
  } else {
    mptl_copy_wide(x, stack->second);
  }
  switch (code) {
    case MPTL_STEP_LOAD:
    case MPTL_STEP_INPUT:
      MPTL_EACH(x[k]);
      break;
    case MPTL_STEP_BATCHNORM: {
      float v[MPTL_WIDE];
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_SCALE * mptl_padded(c), channel, c);
      MPTL_EACH(top[k] * v[k]);
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_SHIFT * mptl_padded(c), channel, c);
      MPTL_EACH(r[k] + v[k]);
      break;
    }
    case MPTL_STEP_ADD:
      MPTL_EACH(x[k] + top[k]);
      break;
    case MPTL_STEP_MUL:
      MPTL_EACH(x[k] * top[k]);
      break;
    case MPTL_STEP_BATCHNORM_BACKWARD: { /* (dy - a - (x - mean) b) scale */
      float v[MPTL_WIDE];
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_MEAN * mptl_padded(c), channel, c);
      MPTL_EACH(x[k] - v[k]);
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_B * mptl_padded(c), channel, c);
      MPTL_EACH(r[k] * v[k]);
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_A * mptl_padded(c), channel, c);
      MPTL_EACH(top[k] - v[k] - r[k]);
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_SCALE * mptl_padded(c), channel, c);
      MPTL_EACH(r[k] * v[k]);
      break;
    }
      MPTL_UNARY_OPERATORS(MPTL_UNARY_CASES)
    default:
      MPTL_EACH(top[k]);
      if (!PLAIN && code == MPTL_STEP_DROPOUT) mptl_drop(r, s, top, i, in_line);
      break;
  }
  if ((code == MPTL_STEP_ADD || code == MPTL_STEP_MUL) && !(flags & MPTL_STEP_READ)) mptl_drop_second(stack);
}

#undef MPTL_UNARY_CASES

MPTL_DEVICE void mptl_before_step(unsigned flags, mptl_stack *stack) {
  if ((flags & (MPTL_STEP_POP | MPTL_STEP_PUSH)) == 0) return;
  if (flags & MPTL_STEP_POP) {
    mptl_copy_wide(stack->top, stack->second);
    mptl_drop_second(stack);
  }
  if (flags & MPTL_STEP_PUSH) {
    mptl_copy_wide(stack->third, stack->second);
    mptl_copy_wide(stack->second, stack->top);
  }
}

#endif

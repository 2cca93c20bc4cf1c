/* A stage of pointwise operators in the form that its kernels run: a list of instructions on a
 * stack of three vectors of eight elements.
 *
 * Forward and backward, the operators of a stage form a tree. So they have an order in which the
 * next instruction uses every result, or the result waits on the small stack. All threads run the
 * same instructions with the same operands, on different elements.
 *
 * MPTL_INS_ stands for instruction.
 */
#ifndef MPTL_KERNELS_CUDA_STAGE_H
#define MPTL_KERNELS_CUDA_STAGE_H

#include "kernels/cuda/values.h"
#include "kernels/pointwise.h"

/* What an instruction computes from top, the vector on top of the stack, and x, the vector that it
 * reads. Specialised stages (specialised.h) use opcodes below 16. */
enum mptl_opcode {
  MPTL_INS_TAKE,  /* top */
  MPTL_INS_LOAD,  /* x */
  MPTL_INS_INPUT, /* x; 0 from element `valid` on */
  MPTL_INS_BATCHNORM,
  MPTL_INS_DROPOUT,
  MPTL_INS_ADD, /* of top and x, or of top and the vector below it */
  MPTL_INS_MUL,
  MPTL_INS_BATCHNORM_BACKWARD, /* x is the input */
#define MPTL_UNARY_OPCODES(name, NAME, traits) \
  MPTL_INS_##NAME, MPTL_INS_##NAME##_BACKWARD, /* x is what backward reads: input or output */
  MPTL_UNARY_OPERATORS(MPTL_UNARY_OPCODES)
#undef MPTL_UNARY_OPCODES
};

/* Flags of an instruction. */
enum {
  MPTL_INS_POP = 1,   /* before the operation: remove top from the stack */
  MPTL_INS_PUSH = 2,  /* before the operation: keep a copy of top below it */
  MPTL_INS_READ = 4,  /* read x from memory */
  MPTL_INS_STORE = 8, /* write the result to memory, keep top; otherwise the result becomes top */
};

typedef struct mptl_instruction {
  uint8_t opcode, flags;
  int8_t exponents;     /* index into the block's exponent counts; -1: exponents are not counted */
  int8_t counted;       /* index into the block's counts of rounding; -1: no rounding */
  uint32_t below;       /* dropout: drops elements whose word's upper 24 bits are below */
  float factor;         /* dropout: multiplies the elements that are kept */
  mptl_key mask;        /* dropout */
  size_t valid;         /* input */
  const float *vectors; /* batch norm: by channel, each of mptl_padded(c) floats (sums.cu) */
  mptl_source_arg source;
  mptl_sink_arg sink; /* of the result; MPTL_ROUND_NOT and no counts: it only reads */
} mptl_instruction;

/* Enough for MPTL_CUDA_STAGE_OPS operators: one for each operator, operand in memory and gradient
 * in memory. */
enum { MPTL_MOST_INSTRUCTIONS = 20 };

typedef struct mptl_instruction_list {
  int n;
  uint32_t counted; /* number of instructions that round */
  uint32_t c;       /* channels */
  size_t numel;
  mptl_instruction at[MPTL_MOST_INSTRUCTIONS];
} mptl_instruction_list;

/* Whether the plain kernels can run the list (vectors.h). */
bool mptl_are_plain(const mptl_instruction_list *list);

static inline __host__ __device__ uint32_t mptl_padded(uint32_t c) {
  return (c + MPTL_WIDE - 1) / MPTL_WIDE * MPTL_WIDE;
}

/* ---- Sums by channel (sums.cu) ---- */

/* The vectors by channel that a batch norm's instructions read. */
enum { MPTL_SCALE, MPTL_SHIFT, MPTL_MEAN, MPTL_A, MPTL_B, MPTL_VECTORS };

/* Bytes that partial sums over an array [rows][c] take. */
size_t mptl_sums_bytes(size_t rows, size_t c);

/* Prepares a batch norm's forward computation. In training: sums x and its squares by channel,
 * relative to the values of the first row, then writes mean, inv_std, running statistics and the
 * scale and shift vectors. In evaluation: takes the running statistics, and writes mean, inv_std
 * and the vectors. partial: mptl_sums_bytes of device memory. */
int mptl_batchnorm_begin(const mptl_cuda_batchnorm *bn, const mptl_source *x, size_t rows, size_t c,
                         bool train, float *vectors, void *partial, mptl_cuda_stream stream);

/* Prepares a batch norm's backward computation: sums by channel the gradient that the list
 * computes, and its product with x - mean, then writes dgamma, dbeta and the vectors. */
int mptl_batchnorm_backward_begin(const mptl_cuda_batchnorm *bn, const mptl_source *x,
                                  const mptl_instruction_list *list, size_t rows, size_t c,
                                  float *vectors, void *partial, mptl_cuda_stream stream);

/* ---- Running instructions ---- */

/* Reads eight elements of a vector by channel. The first is of channel `channel` of c. */
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

/* The stack, in registers. */
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

#define MPTL_EACH(expression) \
  _Pragma("unroll") for (int k = 0; k < MPTL_WIDE; k++) r[k] = (expression)

/* Dropout. Plain kernels do not have it. */
MPTL_DEVICE void mptl_drop(float *r, const mptl_instruction &s, const float *top, size_t i,
                           bool in_line) {
  uint32_t words[MPTL_WIDE];
  if (in_line)
    mptl_random_wide(words, s.mask, i);
  else
    for (unsigned k = 0; k < MPTL_WIDE; k++) words[k] = mptl_random_u32(s.mask, i + k, 0);
  MPTL_EACH(words[k] >> 8 >= s.below ? top[k] * s.factor : 0.0f);
}

/* The two instructions of an operator in kernels/pointwise.h. Plain kernels have only the cheap
 * operators. */
#define MPTL_UNARY_CASES(name, NAME, traits)                                                 \
  case MPTL_INS_##NAME:                                                                      \
    MPTL_EACH(PLAIN && (MPTL_CHEAP & (traits)) == 0 ? top[k] : mptl_##name(top[k]));         \
    break;                                                                                   \
  case MPTL_INS_##NAME##_BACKWARD:                                                           \
    MPTL_EACH(PLAIN && (MPTL_CHEAP & (traits)) == 0 ? top[k]                                 \
                                                    : mptl_##name##_backward(top[k], x[k])); \
    break;

/* Computes r, an instruction's result before rounding, for elements [i, i + n). The first element
 * is of channel `channel`. opcode and flags are the instruction's; they may be constants. in_line:
 * the lanes of a warp have adjacent vectors. */
template <bool PLAIN>
MPTL_DEVICE void mptl_compute_instruction(float *r, unsigned opcode, unsigned flags,
                                          const mptl_instruction &s, mptl_stack *stack, size_t i,
                                          unsigned n, uint32_t channel, uint32_t c, bool in_line) {
  float x[MPTL_WIDE];
  float *top = stack->top;
  if (flags & MPTL_INS_READ) {
    unsigned readable = !PLAIN && opcode == MPTL_INS_INPUT ? mptl_count_at(i, s.valid) : n;
    mptl_read_wide<PLAIN>(x, s.source, i, readable < n ? readable : n);
  } else {
    mptl_copy_wide(x, stack->second);
  }
  switch (opcode) {
    case MPTL_INS_LOAD:
    case MPTL_INS_INPUT:
      MPTL_EACH(x[k]);
      break;
    case MPTL_INS_BATCHNORM: {
      float v[MPTL_WIDE];
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_SCALE * mptl_padded(c), channel, c);
      MPTL_EACH(top[k] * v[k]);
      mptl_read_vector<PLAIN>(v, s.vectors + MPTL_SHIFT * mptl_padded(c), channel, c);
      MPTL_EACH(r[k] + v[k]);
      break;
    }
    case MPTL_INS_ADD:
      MPTL_EACH(x[k] + top[k]);
      break;
    case MPTL_INS_MUL:
      MPTL_EACH(x[k] * top[k]);
      break;
    case MPTL_INS_BATCHNORM_BACKWARD: { /* (dy - a - (x - mean) b) scale */
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
      if (!PLAIN && opcode == MPTL_INS_DROPOUT) mptl_drop(r, s, top, i, in_line);
      break;
  }
  if ((opcode == MPTL_INS_ADD || opcode == MPTL_INS_MUL) && !(flags & MPTL_INS_READ))
    mptl_drop_second(stack);
}

#undef MPTL_UNARY_CASES

/* Pops and pushes, before an instruction runs. */
MPTL_DEVICE void mptl_move_stack(unsigned flags, mptl_stack *stack) {
  if ((flags & (MPTL_INS_POP | MPTL_INS_PUSH)) == 0) return;
  if (flags & MPTL_INS_POP) {
    mptl_copy_wide(stack->top, stack->second);
    mptl_drop_second(stack);
  }
  if (flags & MPTL_INS_PUSH) {
    mptl_copy_wide(stack->third, stack->second);
    mptl_copy_wide(stack->second, stack->top);
  }
}

#endif

/* The CUDA kernels: functions that launch them on addresses in device memory and a CUDA stream.
 * They know nothing of graphs or programs.
 *
 * They compute what the CPU backend computes: each result is rounded once, by kernels/round.h, and
 * counted; sums have a fixed order, so the same call gives the same bits. Results of element-wise
 * operators and layer norms equal the CPU's bit for bit, except for NaN payloads. Sums by channel
 * (batch norm, bias) have another order than on the CPU, and exp and log are CUDA's.
 *
 * Values are NHWC. A function returns 0 or the launch's cudaError_t, and cudaErrorInvalidValue (1)
 * for wrong arguments. It does not wait for the kernel. It reads structs and rounders before it
 * returns; all other pointers are device addresses. A size of 0 does nothing. Statistics and
 * exponent counts are added to the old contents.
 *
 * The same sources are also compiled for the host (shim.h). There, device memory is host memory,
 * and a launch returns after the kernel has run.
 */
#ifndef MPTL_KERNELS_CUDA_KERNELS_H
#define MPTL_KERNELS_CUDA_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" { /* the headers below are C, too */
#endif

#include "kernels/losses.h"
#include "kernels/operands.h"
#include "kernels/operators.h"
#include "kernels/optimizers.h"
#include "kernels/pool.h"
#include "kernels/whole.h"

typedef struct CUstream_st *mptl_cuda_stream; /* cudaStream_t */

/* ---- Arrays (arrays.cu) ---- */

/* This and the next two functions are for specs and benchmarks; programs round arrays in lists.
 * dst[i] = round(src[i]) for i < n, like mptl_round_f32. dst may be src. */
int mptl_cuda_round(float *dst, const float *src, size_t n, const mptl_rounder *rounder,
                    mptl_key key, uint64_t index0, mptl_round_stats *stats,
                    mptl_cuda_stream stream);

/* Rounds numbers and writes their codes (mptl_code_size), like mptl_encode_f32; decodes, like
 * mptl_decode_f32. */
int mptl_cuda_encode(void *codes, const float *src, size_t n, const mptl_rounder *rounder,
                     mptl_key key, uint64_t index0, mptl_round_stats *stats,
                     mptl_cuda_stream stream);
int mptl_cuda_decode(float *dst, const void *codes, size_t n, const mptl_rounder *rounder,
                     mptl_cuda_stream stream);

/* Writes the binary32 results of a matrix product to a sink: of each row of `wide` elements the
 * first c, plus bias[c] (NULL: no bias). The sink's rows follow each other without gaps. */
int mptl_cuda_write_rows(const mptl_sink *sink, const float *results, size_t rows, size_t wide,
                         const float *bias, size_t c, mptl_cuda_stream stream);

/* Writes one value n times: the gradient of the samples' losses. */
int mptl_cuda_write_constant(const mptl_sink *sink, float value, size_t n, mptl_cuda_stream stream);

/* Operand types of matrix units. All values of the source must be exact in the type: a conversion
 * cuts off lower bits. TF32 operands are MPTL_CUDA_CAST_F32. MPTL_CUDA_CAST_CODE8: the 8-bit codes
 * of the source's format. */
typedef enum mptl_cuda_cast_type {
  MPTL_CUDA_CAST_F32,
  MPTL_CUDA_CAST_BF16,
  MPTL_CUDA_CAST_CODE8
} mptl_cuda_cast_type;

/* Converts a value to a type. Rows of c elements become rows of `wide` elements, filled up with
 * zeros. */
int mptl_cuda_cast_rows(void *dst, mptl_cuda_cast_type type, const mptl_source *source, size_t rows,
                        size_t c, size_t wide, mptl_cuda_stream stream);

int mptl_cuda_fill(float *x, float value, size_t n, mptl_cuda_stream stream);

/* Sets *largest, which must not be negative, to the maximum of *largest and the finite magnitudes
 * in the source. */
int mptl_cuda_max_abs(float *largest, const mptl_source *source, size_t n, mptl_cuda_stream stream);

/* ---- Lists of arrays (lists.cu) ---- */

enum { MPTL_CUDA_ROUNDINGS = 64 }; /* the most arrays of a list */

/* Rounds all arrays in one launch, each like mptl_cuda_round. */
int mptl_cuda_round_list(const mptl_rounding *arrays, size_t count, mptl_cuda_stream stream);

/* ---- Parameters (weights.cu, optimizers.cu) ---- */

/* Shape of weights: k filters of c channels and s places (rows times columns of the kernel). */
typedef struct mptl_cuda_weights {
  size_t k, c, s;
} mptl_cuda_weights;

/* Rounds weights from [k][c][s] (PyTorch's order) to [k][s][c], the order that NHWC convolutions
 * and linear layers after a flattened image multiply, in a type. weights: source, rounder, counts;
 * its dst and n are ignored; random bits and counts follow the source's element indices. If its
 * rounder is NULL, the weights are not rounded; MPTL_CUDA_CAST_CODE8 needs a rounder. */
int mptl_cuda_round_weights(void *dst, mptl_cuda_cast_type type, const mptl_rounding *weights,
                            mptl_cuda_weights shape, mptl_cuda_stream stream);

/* Copies gradients of weights from [k][s][c] to [k][c][s], without rounding. */
int mptl_cuda_unpack_weights(float *dst, const float *src, mptl_cuda_weights shape,
                             mptl_cuda_stream stream);

/* A parameter of a model. One launch updates all parameters. */
typedef struct mptl_cuda_param {
  float *p;                      /* master */
  float *state[MPTL_MAX_STATES]; /* the optimizer's state arrays; the others are NULL */
  const float *g;                /* rounded gradient */
  size_t n;
  int group;
  size_t first; /* number of its first chunk; mptl_cuda_plan_params sets it */
} mptl_cuda_param;

/* Sets `first` of all parameters and returns the number of chunks. params is on the host; the
 * caller then copies it to the device. It stays valid as long as the addresses in it. */
size_t mptl_cuda_plan_params(mptl_cuda_param *params, size_t count);

/* Raises *flag to 1 if a gradient holds an infinity or NaN. */
int mptl_cuda_find_nonfinite_gradients(uint32_t *flag, const mptl_cuda_param *params, size_t count,
                                       size_t chunks, mptl_cuda_stream stream);

/* partial[i] = the sum of the squares of the gradients in chunk i, for i < chunks. */
int mptl_cuda_sum_squares(double *partial, const mptl_cuda_param *params, size_t count,
                          size_t chunks, mptl_cuda_stream stream);

/* Updates all parameters. Results equal the CPU's bit for bit. factors: one for each of the
 * parameter groups. If *skip is not 0, nothing is updated; skip may be NULL. */
int mptl_cuda_update(mptl_optimizer_id id, const mptl_cuda_param *params, size_t count,
                     size_t chunks, const mptl_factors *factors, int groups, const uint32_t *skip,
                     mptl_cuda_stream stream);

/* ---- Stages of pointwise operators (stage.cu) ---- */

/* Vectors by channel of a batch norm. */
typedef struct mptl_cuda_batchnorm {
  const float *gamma, *beta;         /* rounded parameters */
  float *mean, *inv_std;             /* saved from forward to backward */
  float *running_mean, *running_var; /* read in evaluation, updated in training unless NULL */
  float *dgamma, *dbeta;             /* backward: unrounded gradients */
  double eps, momentum;
} mptl_cuda_batchnorm;

typedef struct mptl_cuda_op {
  mptl_op_id id; /* INPUT, BATCHNORM2D, DROPOUT, ADD, MUL, or an operator of kernels/pointwise.h */
  int n_in;
  int from[2]; /* the operator of the stage whose output is the input; -1: the input is in[] */
  /* Inputs in memory; backward, the inputs that the operator reads. In training, a batch norm's
   * input is always in memory. INPUT: in[0] is the batch in binary32. */
  mptl_source in[2];
  mptl_source out; /* backward: the rounded output, if the operator reads it */
  mptl_sink y;     /* forward; data is NULL in all operators but the last */
  mptl_sink dx[2]; /* backward; data is NULL if the input is an output of the stage */
  size_t valid;    /* INPUT: elements from here on are 0 */
  double p;        /* dropout: probability that an element becomes 0 */
  mptl_key mask;   /* dropout: random bits of the mask */
  mptl_cuda_batchnorm bn;
} mptl_cuda_op;

/* Operators that run as one, like mptl_stage: the output of each operator but the last has one
 * reader, a later operator. */
typedef struct mptl_cuda_stage {
  int n; /* at most MPTL_CUDA_STAGE_OPS */
  const mptl_cuda_op *ops;
  size_t numel, c; /* elements and channels of every value of the stage */
  bool train;
  mptl_source dy; /* backward: gradient of the last output, in memory */
  void *scratch;  /* mptl_cuda_stage_scratch bytes, 16-byte aligned */
} mptl_cuda_stage;

enum { MPTL_CUDA_STAGE_OPS = 8 };

size_t mptl_cuda_stage_scratch(const mptl_cuda_stage *stage);
int mptl_cuda_stage_forward(const mptl_cuda_stage *stage, mptl_cuda_stream stream);
int mptl_cuda_stage_backward(const mptl_cuda_stage *stage, mptl_cuda_stream stream);

/* ---- Sums by channel (sums.cu) ---- */

/* dbias[i] = the sum over all rows of a gradient [rows][c]. */
size_t mptl_cuda_bias_gradient_scratch(size_t rows, size_t c);
int mptl_cuda_bias_gradient(float *dbias, const mptl_source *dy, size_t rows, size_t c,
                            void *scratch, mptl_cuda_stream stream);

/* ---- Pools (pool.cu) ---- */

int mptl_cuda_avgpool_forward(const mptl_sink *y, const mptl_source *x, const mptl_pool *pool,
                              mptl_cuda_stream stream);
int mptl_cuda_avgpool_backward(const mptl_sink *dx, const mptl_source *dy, const mptl_pool *pool,
                               mptl_cuda_stream stream);
int mptl_cuda_maxpool_forward(const mptl_sink *y, const mptl_source *x, const mptl_pool *pool,
                              mptl_cuda_stream stream);

/* scratch: mptl_cuda_maxpool_scratch bytes, 16-byte aligned, for the places of the maxima. */
size_t mptl_cuda_maxpool_scratch(const mptl_pool *pool);
int mptl_cuda_maxpool_backward(const mptl_sink *dx, const mptl_source *x, const mptl_source *dy,
                               const mptl_pool *pool, void *scratch, mptl_cuda_stream stream);

/* ---- Channels side by side (shape.cu) ---- */

enum { MPTL_CUDA_CONCAT_INPUTS = 16 };

/* Concatenates inputs along the channels, then shuffles the channels. */
typedef struct mptl_cuda_concat {
  size_t pixels;
  int n_in;
  size_t counts[MPTL_CUDA_CONCAT_INPUTS]; /* channels of each input */
  size_t shuffle;                         /* channel groups; 1: no shuffle */
} mptl_cuda_concat;

int mptl_cuda_concat_forward(const mptl_sink *y, const mptl_source *x,
                             const mptl_cuda_concat *concat, mptl_cuda_stream stream);
int mptl_cuda_concat_backward(const mptl_sink *dx, const mptl_source *dy,
                              const mptl_cuda_concat *concat, mptl_cuda_stream stream);

/* Channels [first, first + count) of c. Backward sets the other channels to zero; if part is set,
 * it does not write them. */
typedef struct mptl_cuda_slice {
  size_t pixels, c, first, count;
  bool part;
} mptl_cuda_slice;

int mptl_cuda_slice_forward(const mptl_sink *y, const mptl_source *x, const mptl_cuda_slice *slice,
                            mptl_cuda_stream stream);
int mptl_cuda_slice_backward(const mptl_sink *dx, const mptl_source *dy,
                             const mptl_cuda_slice *slice, mptl_cuda_stream stream);

/* ---- Layer norms (layernorm.cu) ---- */

/* Rows of c elements, each normalised by its own mean and variance. */
typedef struct mptl_cuda_layernorm {
  size_t rows, c;
  double eps;
  const float *weight, *bias; /* [c], rounded; bias NULL: there is none */
  /* Backward: unrounded gradients. dweight NULL: neither is computed; dbias NULL: only dweight. */
  float *dweight, *dbias;
} mptl_cuda_layernorm;

int mptl_cuda_layernorm_forward(const mptl_sink *y, const mptl_source *x,
                                const mptl_cuda_layernorm *norm, mptl_cuda_stream stream);

/* Computes dx unless dx->wanted is false. scratch: mptl_cuda_layernorm_scratch bytes, 16-byte
 * aligned. */
size_t mptl_cuda_layernorm_scratch(size_t rows, size_t c);
int mptl_cuda_layernorm_backward(const mptl_sink *dx, const mptl_source *x, const mptl_source *dy,
                                 const mptl_cuda_layernorm *norm, void *scratch,
                                 mptl_cuda_stream stream);

/* ---- Loss (loss.cu): a row of classes for each sample ---- */

int mptl_cuda_log_softmax_forward(const mptl_sink *y, const mptl_source *x, size_t batch,
                                  size_t classes, mptl_cuda_stream stream);
int mptl_cuda_log_softmax_backward(const mptl_sink *dx, const mptl_source *y, const mptl_source *dy,
                                   size_t batch, size_t classes, mptl_cuda_stream stream);

/* A loss (kernels/losses.h), by its operator: one number for each sample. A loss whose gradient
 * does not depend on x ignores backward's x; size 0 means that x is not there. */
int mptl_cuda_loss_forward(mptl_op_id id, const mptl_sink *y, const mptl_source *x,
                           const mptl_targets *targets, const mptl_loss_shape *shape,
                           mptl_loss *loss, mptl_cuda_stream stream);
int mptl_cuda_loss_backward(mptl_op_id id, const mptl_sink *dx, const mptl_source *x,
                            const mptl_source *dy, const mptl_targets *targets,
                            const mptl_loss_shape *shape, mptl_cuda_stream stream);

/* ---- Checks of matrix products (check.cu) ---- */

/* A pass of a convolution, as in engine/backend/shapes.h: 0 forward, 1 backward by data, 2 backward
 * by weights. Activations are NHWC, weights and their gradients [oc][kh][kw][ic / groups]. */
typedef struct mptl_cuda_sums {
  int pass;
  uint32_t n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups;
} mptl_cuda_sums;

/* The result of checks. Checks add to it; all bytes must be 0 before the first. */
typedef struct mptl_cuda_verdict {
  uint64_t wrong;  /* samples that differ from the expected sum; NaN always does */
  uint64_t others; /* elements whose bits differ between two results */
  uint64_t left;   /* elements that are NaN */
  uint64_t behind; /* number of samples from the first wrong sample to the last sample */
  uint64_t at;     /* index of the first wrong sample in the result */
  float got, expected;
  uint64_t largest; /* the largest magnitude that a compared sample should have */
} mptl_cuda_verdict;

/* Writes n whole numbers, element i the i-th of `numbers`. Of dst, data, size and rounder are used;
 * the numbers must be exact in the rounder's format. */
int mptl_cuda_fill_whole(const mptl_sink *dst, const mptl_whole *numbers, size_t n,
                         mptl_cuda_stream stream);

/* The number of elements of a result to check: enough for about 2^29 products, at least 2^10 and at
 * most 2^16, or all if there are fewer. */
size_t mptl_cuda_check_samples(const mptl_cuda_sums *sums);

/* Compares `samples` elements of a result, among them the first and the last, with sums of products
 * of whole numbers. Elements are skipped if the magnitudes of their products add up to `most` or
 * more. */
int mptl_cuda_check_sums(mptl_cuda_verdict *verdict, const float *result, const mptl_source *first,
                         const mptl_source *second, const mptl_cuda_sums *sums, size_t samples,
                         int64_t most, mptl_cuda_stream stream);

/* Compares all elements of two results. */
int mptl_cuda_check_same(mptl_cuda_verdict *verdict, const float *a, const float *b, size_t n,
                         mptl_cuda_stream stream);

#ifdef __cplusplus
}
#endif

#endif

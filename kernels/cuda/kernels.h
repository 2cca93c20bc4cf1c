/* The CUDA kernels: launchers over addresses in the device's memory and a stream. They know nothing of graphs or programs.
 *
 * What they compute is what the CPU backend computes: one rounding, by kernels/round.h, with statistics; sums in a fixed order, so that
 * the same call gives the same bits. Element-wise results equal the CPU's bit for bit, NaN payloads apart; so do those
 * of layer norms. Sums by channel (batch norm, bias) are taken in another order, and exp and log are
 * CUDA's.
 *
 * Values are NHWC. A launcher returns 0, or the cudaError_t of the launch (cudaErrorInvalidValue, 1, where arguments cannot be
 * right); it does not wait. Structs and rounders are read before it returns; all other pointers are the device's. Sizes of 0 do nothing.
 * Statistics and exponents are added to what is there.
 *
 * The same sources are compiled for the host too (shim.h), where device memory is memory and a launch runs before it returns.
 */
#ifndef MPTL_KERNELS_CUDA_KERNELS_H
#define MPTL_KERNELS_CUDA_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" { /* the headers of C, too */
#endif

#include "kernels/losses.h"
#include "kernels/operands.h"
#include "kernels/operators.h"
#include "kernels/optimizers.h"
#include "kernels/pool.h"
#include "kernels/whole.h"

typedef struct CUstream_st *mptl_cuda_stream; /* cudaStream_t */

/* ---- Arrays (arrays.cu) ---- */

/* The next three are for specs and benchmarks; programs round arrays in lists. dst[i] = round(src[i]), i < n; dst may be src. As
 * mptl_round_f32. */
int mptl_cuda_round(float *dst, const float *src, size_t n, const mptl_rounder *rounder, mptl_key key, uint64_t index0,
                    mptl_round_stats *stats, mptl_cuda_stream stream);

/* Rounds and writes codes (mptl_code_size), or reads them. As mptl_encode_f32 and mptl_decode_f32. */
int mptl_cuda_encode(void *codes, const float *src, size_t n, const mptl_rounder *rounder, mptl_key key, uint64_t index0,
                     mptl_round_stats *stats, mptl_cuda_stream stream);
int mptl_cuda_decode(float *dst, const void *codes, size_t n, const mptl_rounder *rounder, mptl_cuda_stream stream);

/* Writes results of a matrix product, binary32, in rows of `wide`, to a sink: the first c of each row, plus bias[c] (NULL: none), one row
 * behind the other. */
int mptl_cuda_write_rows(const mptl_sink *sink, const float *results, size_t rows, size_t wide, const float *bias, size_t c,
                         mptl_cuda_stream stream);

/* Writes one value n times: the gradient of the samples' losses. */
int mptl_cuda_write_constant(const mptl_sink *sink, float value, size_t n, mptl_cuda_stream stream);

/* Types that matrix units take. Where a value of the source is not exact in it, its lower bits are cut off: do not ask for that. TF32's
 * exact values are binary32's, so they take MPTL_CUDA_CAST_F32. MPTL_CUDA_CAST_CODE8: the 8-bit codes of the rounder's format, in which the
 * values are exact. */
typedef enum mptl_cuda_cast_type { MPTL_CUDA_CAST_F32, MPTL_CUDA_CAST_BF16, MPTL_CUDA_CAST_CODE8 } mptl_cuda_cast_type;

/* Rows of c elements of a value, in a type, as rows of `wide`; the other elements are zeros. */
int mptl_cuda_cast_rows(void *dst, mptl_cuda_cast_type type, const mptl_source *source, size_t rows, size_t c, size_t wide,
                        mptl_cuda_stream stream);

int mptl_cuda_fill(float *x, float value, size_t n, mptl_cuda_stream stream);

/* Raises *largest, which is not negative, to the largest finite magnitude in the source. */
int mptl_cuda_max_abs(float *largest, const mptl_source *source, size_t n, mptl_cuda_stream stream);

/* ---- Lists of arrays (lists.cu) ---- */

enum { MPTL_CUDA_ROUNDINGS = 64 }; /* arrays of a list at most */

/* Rounds them all in one launch, each as mptl_cuda_round does. */
int mptl_cuda_round_list(const mptl_rounding *arrays, size_t count, mptl_cuda_stream stream);

/* ---- Parameters (weights.cu, optimizers.cu) ---- */

/* Weights [k][c][s] (s places of a filter, PyTorch's order) to [k][s][c], as NHWC convolutions and linear layers behind a flattened
 * image want them, in a type; rounded on the way and counted as the array says, whose dst and n mean nothing, element indices being those
 * of the source. Its rounder may be NULL: as they are; MPTL_CUDA_CAST_CODE8 wants one. */
typedef struct mptl_cuda_weights {
  size_t k, c, s;
} mptl_cuda_weights;

int mptl_cuda_round_weights(void *dst, mptl_cuda_cast_type type, const mptl_rounding *weights, mptl_cuda_weights shape,
                            mptl_cuda_stream stream);

/* Their gradients back: [k][s][c] to [k][c][s]; not rounded. */
int mptl_cuda_unpack_weights(float *dst, const float *src, mptl_cuda_weights shape, mptl_cuda_stream stream);

/* A parameter of a model; the update of all of them is one launch. */
typedef struct mptl_cuda_param {
  float *p;                      /* master */
  float *state[MPTL_MAX_STATES]; /* the optimizer's; NULL beyond those it has */
  const float *g;                /* rounded gradient */
  size_t n;
  int group;
  size_t first; /* set by mptl_cuda_plan_params: number of its first chunk */
} mptl_cuda_param;

/* Fills in `first` on the host and returns the number of chunks. The table then goes to the device, and stays valid while addresses do. */
size_t mptl_cuda_plan_params(mptl_cuda_param *params, size_t count);

/* Raises *flag to 1 if a gradient holds an infinity or NaN. */
int mptl_cuda_find_nonfinite_gradients(uint32_t *flag, const mptl_cuda_param *params, size_t count, size_t chunks,
                                       mptl_cuda_stream stream);

/* partial[i], i < chunks: the sum of the squares of the gradients in chunk i. */
int mptl_cuda_sum_squares(double *partial, const mptl_cuda_param *params, size_t count, size_t chunks, mptl_cuda_stream stream);

/* Updates all parameters, equal to the CPU's bit for bit; factors are by group. Nothing happens where *skip (NULL: 0) is not 0. */
int mptl_cuda_update(mptl_optimizer_id id, const mptl_cuda_param *params, size_t count, size_t chunks,
                     const mptl_factors *factors, int groups, const uint32_t *skip, mptl_cuda_stream stream);

/* ---- Stages of pointwise operators (stage.cu) ---- */

/* Vectors by channel of a batch norm. */
typedef struct mptl_cuda_batchnorm {
  const float *gamma, *beta;         /* rounded parameters */
  float *mean, *inv_std;             /* kept from forward to backward */
  float *running_mean, *running_var; /* read in evaluation, updated in training, there NULL: not */
  float *dgamma, *dbeta;             /* backward: unrounded gradients */
  double eps, momentum;
} mptl_cuda_batchnorm;

typedef struct mptl_cuda_op {
  mptl_op_id id; /* INPUT, BATCHNORM2D, DROPOUT, ADD, MUL, or of kernels/pointwise.h */
  int n_in;
  int from[2]; /* the operator of the stage that makes the input; -1: it is in memory, in in[] */
  /* Backward: those that it reads; a batch norm's is always in memory in training. INPUT: in[0] is
   * the batch in binary32. */
  mptl_source in[2];
  mptl_source out; /* backward: the rounded output, if the operator reads it */
  mptl_sink y;     /* forward; data is NULL in all but the last operator */
  mptl_sink dx[2]; /* backward; data is NULL where the input is the stage's own */
  size_t valid;    /* INPUT: elements from here on are 0 */
  double p;        /* dropout: probability that an element becomes 0 */
  mptl_key mask;   /* dropout: random bits of the mask */
  mptl_cuda_batchnorm bn;
} mptl_cuda_op;

/* Operators that run as one, as mptl_stage: each but the last has one consumer, a later one. */
typedef struct mptl_cuda_stage {
  int n; /* at most MPTL_CUDA_STAGE_OPS */
  const mptl_cuda_op *ops;
  size_t numel, c; /* elements and channels of every value of the stage */
  bool train;
  mptl_source dy; /* backward: gradient of the last output, in memory */
  void *scratch;  /* mptl_cuda_stage_scratch of them, 16-byte aligned */
} mptl_cuda_stage;

enum { MPTL_CUDA_STAGE_OPS = 8 };

size_t mptl_cuda_stage_scratch(const mptl_cuda_stage *stage);
int mptl_cuda_stage_forward(const mptl_cuda_stage *stage, mptl_cuda_stream stream);
int mptl_cuda_stage_backward(const mptl_cuda_stage *stage, mptl_cuda_stream stream);

/* ---- Sums by channel (sums.cu) ---- */

/* dbias[i] = sum of a gradient's rows, [rows][c]. */
size_t mptl_cuda_bias_gradient_scratch(size_t rows, size_t c);
int mptl_cuda_bias_gradient(float *dbias, const mptl_source *dy, size_t rows, size_t c, void *scratch, mptl_cuda_stream stream);

/* ---- Pools (pool.cu) ---- */

int mptl_cuda_avgpool_forward(const mptl_sink *y, const mptl_source *x, const mptl_pool *pool, mptl_cuda_stream stream);
int mptl_cuda_avgpool_backward(const mptl_sink *dx, const mptl_source *dy, const mptl_pool *pool, mptl_cuda_stream stream);
int mptl_cuda_maxpool_forward(const mptl_sink *y, const mptl_source *x, const mptl_pool *pool, mptl_cuda_stream stream);

/* scratch: mptl_cuda_maxpool_scratch bytes, 16-byte aligned, for the places of the maxima. */
size_t mptl_cuda_maxpool_scratch(const mptl_pool *pool);
int mptl_cuda_maxpool_backward(const mptl_sink *dx, const mptl_source *x, const mptl_source *dy, const mptl_pool *pool,
                               void *scratch, mptl_cuda_stream stream);

/* ---- Channels side by side (shape.cu) ---- */

enum { MPTL_CUDA_CONCAT_INPUTS = 16 };

/* Inputs of counts[k] channels put together, then shuffled in so many groups (1: not). */
typedef struct mptl_cuda_concat {
  size_t pixels;
  int n_in;
  size_t counts[MPTL_CUDA_CONCAT_INPUTS];
  size_t shuffle;
} mptl_cuda_concat;

int mptl_cuda_concat_forward(const mptl_sink *y, const mptl_source *x, const mptl_cuda_concat *concat, mptl_cuda_stream stream);
int mptl_cuda_concat_backward(const mptl_sink *dx, const mptl_source *dy, const mptl_cuda_concat *concat,
                              mptl_cuda_stream stream);

/* Channels [first, first + count) of c. Backward fills the others with zeros, or with part set leaves them alone. */
typedef struct mptl_cuda_slice {
  size_t pixels, c, first, count;
  bool part;
} mptl_cuda_slice;

int mptl_cuda_slice_forward(const mptl_sink *y, const mptl_source *x, const mptl_cuda_slice *slice, mptl_cuda_stream stream);
int mptl_cuda_slice_backward(const mptl_sink *dx, const mptl_source *dy, const mptl_cuda_slice *slice, mptl_cuda_stream stream);

/* ---- Layer norms (layernorm.cu) ---- */

/* Rows of c elements, each normalised by its own mean and variance. */
typedef struct mptl_cuda_layernorm {
  size_t rows, c;
  double eps;
  const float *weight, *bias; /* [c], rounded; bias NULL: there is none */
  float *dweight, *dbias;     /* backward: unrounded gradients; dweight NULL: neither is wanted, dbias NULL: it is not */
} mptl_cuda_layernorm;

int mptl_cuda_layernorm_forward(const mptl_sink *y, const mptl_source *x, const mptl_cuda_layernorm *norm,
                                mptl_cuda_stream stream);

/* dx may be one that is not wanted. scratch: mptl_cuda_layernorm_scratch bytes, 16-byte aligned. */
size_t mptl_cuda_layernorm_scratch(size_t rows, size_t c);
int mptl_cuda_layernorm_backward(const mptl_sink *dx, const mptl_source *x, const mptl_source *dy,
                                 const mptl_cuda_layernorm *norm, void *scratch, mptl_cuda_stream stream);

/* ---- Loss (loss.cu): a row of classes a sample ---- */

int mptl_cuda_log_softmax_forward(const mptl_sink *y, const mptl_source *x, size_t batch, size_t classes,
                                  mptl_cuda_stream stream);
int mptl_cuda_log_softmax_backward(const mptl_sink *dx, const mptl_source *y, const mptl_source *dy, size_t batch, size_t classes,
                                   mptl_cuda_stream stream);

/* A loss (kernels/losses.h), by its operator: one number a sample. x of backward may be anything where the loss's gradient does not read
 * it; with size 0 it is not read. */
int mptl_cuda_loss_forward(mptl_op_id id, const mptl_sink *y, const mptl_source *x, const mptl_targets *targets,
                           const mptl_loss_shape *shape, mptl_loss *loss, mptl_cuda_stream stream);
int mptl_cuda_loss_backward(mptl_op_id id, const mptl_sink *dx, const mptl_source *x, const mptl_source *dy,
                            const mptl_targets *targets, const mptl_loss_shape *shape, mptl_cuda_stream stream);

/* ---- Checks of matrix products (check.cu) ---- */

/* A pass of a convolution, as engine/backend/shapes.h has them: 0 forward, 1 backward data, 2 backward weights. Activations are NHWC,
 * weights and their gradients [oc][kh][kw][ic / groups]. */
typedef struct mptl_cuda_sums {
  int pass;
  uint32_t n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups;
} mptl_cuda_sums;

/* What was found, added to what is there: to begin with, all bytes 0. */
typedef struct mptl_cuda_verdict {
  uint64_t wrong;  /* samples that are not what they should be, a NaN included */
  uint64_t others; /* elements whose bits are not the same in both results */
  uint64_t left;   /* elements that are NaN */
  uint64_t behind; /* samples from the first wrong one on */
  uint64_t at;     /* its number in the result */
  float got, expected;
  uint64_t largest; /* magnitude that a sample should have */
} mptl_cuda_verdict;

/* n whole numbers, element i the numbers' i-th; dst's data, size and rounder say where and in what codes, which hold them. */
int mptl_cuda_fill_whole(const mptl_sink *dst, const mptl_whole *numbers, size_t n, mptl_cuda_stream stream);

/* Elements of a result to look at: all, or as many as make some 2^29 products, from 2^10 to 2^16. */
size_t mptl_cuda_check_samples(const mptl_cuda_sums *sums);

/* Compares so many elements of a result, first and last among them, with the sums of products of whole numbers. Those whose products'
 * magnitudes are `most` or more together are passed over. */
int mptl_cuda_check_sums(mptl_cuda_verdict *verdict, const float *result, const mptl_source *first, const mptl_source *second,
                         const mptl_cuda_sums *sums, size_t samples, int64_t most, mptl_cuda_stream stream);

/* Compares all elements of two results. */
int mptl_cuda_check_same(mptl_cuda_verdict *verdict, const float *a, const float *b, size_t n, mptl_cuda_stream stream);

#ifdef __cplusplus
}
#endif

#endif

/* The CPU kernels, one table for each instruction set.
 *
 * The files in kernels/cpu/isa are compiled once per instruction set, with its compiler flags and
 * with MPTL_ISA defined to its name. To add a kernel, add a line to MPTL_CPU_KERNELS and, to a file
 * there, the function MPTL_CPU(name).
 */
#ifndef MPTL_KERNELS_CPU_TABLE_H
#define MPTL_KERNELS_CPU_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/codes.h"
#include "kernels/cpu/layers.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/resample.h"
#include "kernels/operators.h"
#include "kernels/optimizers.h"
#include "kernels/round.h"

/* X(result, name, parameters). The first kernels are described as functions of mptl/round.h, the
 * last ones in isa/dropout.c and isa/resample.c. stats is never NULL. decode_bf16 writes the upper
 * halves of the binary32 patterns; decode_bf16_rows decodes rows of `columns` codes, `step` codes
 * apart, to rows that are to_step elements apart. */
#define MPTL_CPU_KERNELS(X)                                                                        \
  X(void, round_f32,                                                                               \
    (float *dst, const float *src, size_t n, const mptl_rounder *r, mptl_key key, uint64_t index0, \
     mptl_round_stats *stats))                                                                     \
  X(void, encode_f32,                                                                              \
    (void *codes, const float *src, size_t n, const mptl_rounder *r, mptl_key key,                 \
     uint64_t index0, mptl_round_stats *stats))                                                    \
  X(void, decode_f32, (float *dst, const void *codes, size_t n, const mptl_rounder *r))            \
  X(void, decode_bf16, (uint16_t * dst, const void *codes, size_t n, const mptl_rounder *r))       \
  X(void, decode_bf16_rows,                                                                        \
    (uint16_t * dst, size_t to_step, const void *codes, size_t step, size_t columns, size_t rows,  \
     const mptl_rounder *r))                                                                       \
  X(float, max_abs_f32, (const float *x, size_t n))                                                \
  X(void, dropout_f32,                                                                             \
    (float *dst, const float *src, size_t n, double p, mptl_key key,                               \
     uint64_t index0)) /* kept where random_uniform >= p */                                        \
  X(void, resample_row,                                                                            \
    (uint8_t * dst, const uint8_t *src, int n, const mptl_filter_weights *w,                       \
     int32_t *scratch)) /* n pixels; scratch: 3 numbers for each source and scaled pixel, and 2 */ \
  X(void, resample_column,                                                                         \
    (uint8_t * dst, const uint8_t *src, size_t stride, size_t n, const int32_t *values,            \
     int count)) /* n bytes of a row */

/* Updates n elements of a parameter (kernels/optimizers.h); state: the arrays of its state. */
typedef void mptl_update_kernel(float *p, float *const *state, const float *g, size_t n,
                                const mptl_factors *factors);

/* An operator of kernels/pointwise.h on n elements. read is what backward reads: the rounded input
 * or output. */
typedef struct mptl_unary_kernels {
  void (*forward)(float *y, const float *x, size_t n);
  void (*backward)(float *dx, const float *dy, const float *read, size_t n);
} mptl_unary_kernels;

#define MPTL_CPU_FIELD(result, name, parameters) result(*name) parameters;

typedef struct mptl_cpu_kernels {
  MPTL_CPU_KERNELS(MPTL_CPU_FIELD)
  const mptl_code_kernels *codes;
  const mptl_layer_kernels *layers;
  const mptl_norm_kernels *norm;
  const mptl_product_kernels *products;
  mptl_update_kernel *const *updates; /* by mptl_optimizer_id */
  const mptl_unary_kernels *unary; /* by mptl_op_id; functions are NULL for operators that are not
                                      in kernels/pointwise.h */
} mptl_cpu_kernels;

/* The kernels of the instruction set in use, which is chosen at the first call (mptl/isa.h). */
const mptl_cpu_kernels *mptl_cpu_kernels_get(void);

/* For kernels/cpu/isa only: prototypes, and names that end in the instruction set. */
#ifdef MPTL_ISA
#define MPTL_CPU_PASTE(name, isa) mptl_cpu_##name##_##isa
#define MPTL_CPU_EXPAND(name, isa) MPTL_CPU_PASTE(name, isa)
#define MPTL_CPU(name) MPTL_CPU_EXPAND(name, MPTL_ISA)
extern const mptl_code_kernels MPTL_CPU(codes);
extern const mptl_layer_kernels MPTL_CPU(layers);
extern const mptl_norm_kernels MPTL_CPU(norm);
extern const mptl_product_kernels MPTL_CPU(products);
extern mptl_update_kernel *const MPTL_CPU(updates)[MPTL_OPTIMIZER_IDS];
extern const mptl_unary_kernels MPTL_CPU(unary)[MPTL_OP_IDS];
#define MPTL_CPU_PROTOTYPE(result, name, parameters) result MPTL_CPU(name) parameters;
MPTL_CPU_KERNELS(MPTL_CPU_PROTOTYPE)
#endif

#endif

/* The operands of matrix products, in the form that a pass multiplies.
 *
 * bf16 units multiply numbers of at most 8 significant bits exactly. A number of up to 16
 * significant bits is the exact sum of two such numbers: its upper bits (high) and the rest (low).
 * So a product of such numbers is the sum of two or four exact products.
 *
 * To add all of them in one accumulator, the dimension over which the pass sums becomes two or four
 * times as long: forward the input's channels, backward by data the output's channels, backward by
 * weights the images. Each chunk of an operand is repeated along that dimension, so that each of
 * its parts meets each part of the other operand: (high) (low) by (x) (x), or (high) (high) (low)
 * (low) by (high) (low) (high) (low).
 */
#ifndef MPTL_BACKEND_CPU_GEMM_H
#define MPTL_BACKEND_CPU_GEMM_H

#include "backend/cpu/cpu.h"
#include "backend/cpu/dnn.h"

/* How a pass multiplies: in binary32, or in bf16 with one, two or four products for each
 * product. */
typedef enum mptl_gemm_way {
  MPTL_GEMM_F32,
  MPTL_GEMM_BF16,
  MPTL_GEMM_2BF16,
  MPTL_GEMM_4BF16,
  MPTL_GEMM_WAYS
} mptl_gemm_way;

/* How many times as long the dimension of the sum becomes. */
static inline size_t mptl_gemm_repeats(mptl_gemm_way way) {
  return way == MPTL_GEMM_4BF16 ? 4 : way == MPTL_GEMM_2BF16 ? 2 : 1;
}

/* Chooses how to multiply operands of formats a and b (NULL: binary32), under a setting, on this
 * machine, for an operator with so many parameters. */
mptl_gemm_way mptl_gemm_choose(mptl_compute_setting setting, const mptl_format *a,
                               const mptl_format *b, int channel_groups, size_t parameters);

/* How a chunk is repeated: it has `terms` parts (1 or 2); each part stands `inner` times in a row,
 * and all of this `outer` times. */
typedef struct mptl_repeat {
  size_t terms, inner, outer;
} mptl_repeat;

/* The repetition of the first or second operand, in its format. */
mptl_repeat mptl_gemm_repeat(mptl_gemm_way way, bool second, mptl_format format);

/* Bytes of n elements of a value in the form that the pass multiplies; 0: the stored form is the
 * right one. */
size_t mptl_gemm_operand_bytes(const mptl_source *source, mptl_gemm_way way, size_t n);

/* Returns elements [offset, offset + n) of a value in the form that the pass multiplies: in area,
 * or in place. Each chunk of `chunk` elements is repeated; n is a multiple of chunk if there are
 * repetitions. */
const void *mptl_gemm_operand(int threads, const mptl_source *source, mptl_gemm_way way,
                              mptl_repeat repeat, size_t chunk, size_t offset, size_t n,
                              void *area);

/* The same for n weights, which stay in binary32: returns weights if nothing is repeated. */
size_t mptl_gemm_weights_bytes(mptl_gemm_way way, size_t n);
const float *mptl_gemm_weights(int threads, const float *weights, mptl_gemm_way way,
                               mptl_repeat repeat, size_t chunk, size_t n, void *area);

#endif

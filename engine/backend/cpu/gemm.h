/* Operands of matrix products in the form that a pass multiplies.
 *
 * bf16 units multiply numbers of at most 8 significant bits, exactly. A number of up to 16 is the sum of two such, exactly: its upper
 * bits and the rest. A product of such numbers is then the sum of two or four exact products, and all of them go into one accumulator
 * if the dimension that the pass sums over is made so many times as long: the channels of the input forward, those of the output for the
 * gradient of the input, the images for the gradient of the weights. There each chunk is repeated, its parts beside the other
 * operand's: (high) (low) by (x) (x), or (high) (high) (low) (low) by (high) (low) (high) (low).
 */
#ifndef MPTL_BACKEND_CPU_GEMM_H
#define MPTL_BACKEND_CPU_GEMM_H

#include "backend/cpu/cpu.h"
#include "backend/cpu/dnn.h"

/* How a pass multiplies: binary32, or bf16 with so many products for one. */
typedef enum mptl_gemm_kind { MPTL_GEMM_F32, MPTL_GEMM_BF16, MPTL_GEMM_2BF16, MPTL_GEMM_4BF16, MPTL_GEMM_KINDS } mptl_gemm_kind;

/* Repetitions of the dimension that is summed over. */
static inline size_t mptl_gemm_repeats(mptl_gemm_kind kind) {
  return kind == MPTL_GEMM_4BF16 ? 4 : kind == MPTL_GEMM_2BF16 ? 2 : 1;
}

/* The way for operands of these formats (rounders; NULL: binary32), by the setting and the machine. groups of the convolution. */
mptl_gemm_kind mptl_gemm_choose(mptl_compute_setting setting, const mptl_format *a, const mptl_format *b, int groups);

/* How an operand is repeated: it has `terms` parts (1 or 2), each of which comes `inner` times in a row, all of that `outer` times. */
typedef struct mptl_repeat {
  size_t terms, inner, outer;
} mptl_repeat;

/* For the first or second operand of a product of that kind. */
mptl_repeat mptl_gemm_repeat(mptl_gemm_kind kind, bool second, mptl_format format);

/* Bytes of n elements of a value as a kind wants them; 0: as they are in memory. */
size_t mptl_gemm_operand_bytes(const mptl_source *source, mptl_gemm_kind kind, size_t n);

/* Elements [offset, offset + n) of a value, converted into area where they have to be, on so many threads; each chunk repeated (n is a
 * multiple). */
const void *mptl_gemm_operand(int threads, const mptl_source *source, mptl_gemm_kind kind, mptl_repeat repeat, size_t chunk,
                              size_t offset, size_t n, void *area);

/* Weights in binary32 with each chunk repeated; the weights themselves where they need not be. */
size_t mptl_gemm_weights_bytes(mptl_gemm_kind kind, size_t n);
const float *mptl_gemm_weights(int threads, const float *weights, mptl_gemm_kind kind, mptl_repeat repeat, size_t chunk, size_t n,
                               void *area);

#endif

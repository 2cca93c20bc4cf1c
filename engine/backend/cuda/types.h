/* The operand types of matrix products on the GPU. With all types, sums and results are
 * binary32. */
#ifndef MPTL_BACKEND_CUDA_TYPES_H
#define MPTL_BACKEND_CUDA_TYPES_H

#include <stdbool.h>
#include <stddef.h>

#include "mptl/status.h"

typedef enum mptl_cuda_type {
  MPTL_CUDA_F32,  /* binary32 arrays, binary32 products: no tensor cores */
  MPTL_CUDA_TF32, /* binary32 arrays; products use 11 significant bits of each value */
  MPTL_CUDA_BF16, /* bf16 arrays */
  MPTL_CUDA_E4M3, /* OCP 8-bit codes (largest 448, no infinity) */
  MPTL_CUDA_E5M2, /* OCP 8-bit codes (largest 57344, infinities) */
  MPTL_CUDA_TYPES
} mptl_cuda_type;

/* The types of a pass's two operands: equal, or both of 8 bits. */
typedef struct mptl_cuda_pair {
  mptl_cuda_type first, second;
  bool inexact; /* TF32 for numbers that may have more bits: the library rounds them */
} mptl_cuda_pair;

/* The pairs of types in which a pass may be multiplied, the best one first. The pass uses the first
 * for which the library has code. */
typedef struct mptl_cuda_choices {
  int n;
  mptl_cuda_pair pairs[4]; /* 8 bits, bf16, TF32, binary32 */
} mptl_cuda_choices;

/* "f32", "tf32", "bf16", "e4m3", "e5m2" */
const char *mptl_cuda_type_name(mptl_cuda_type type);

/* Bytes of an element of an operand. */
size_t mptl_cuda_type_size(mptl_cuda_type type);

/* Whether devices of a compute capability (10 * major + minor) have units for the type: TF32 and
 * bf16 from 80 on, 8 bits from 89 on. Tensor cores of 89 and 90 sum 8-bit products with fewer bits
 * than binary32. */
bool mptl_cuda_supports(int capability, mptl_cuda_type type);

/* MPTL_EINVAL: the operands of a product cannot have these types, which must be equal or both of 8
 * bits. MPTL_EUNSUPPORTED: devices of this compute capability have no units for them. */
mptl_status mptl_cuda_check_types(int capability, mptl_cuda_type first, mptl_cuda_type second);

#endif

/* What a matrix product on the GPU multiplies. With all types it sums in binary32 and has results in binary32. */
#ifndef MPTL_BACKEND_CUDA_TYPES_H
#define MPTL_BACKEND_CUDA_TYPES_H

#include <stdbool.h>
#include <stddef.h>

#include "mptl/status.h"

typedef enum mptl_cuda_type {
  MPTL_CUDA_F32,  /* binary32 arrays, binary32 products: no tensor cores */
  MPTL_CUDA_TF32, /* binary32 arrays of which 11 significant bits are multiplied; exact for values that have no more */
  MPTL_CUDA_BF16, /* bf16 arrays */
  MPTL_CUDA_E4M3, /* OCP 8-bit codes (largest 448, no infinity) */
  MPTL_CUDA_E5M2, /* OCP 8-bit codes (largest 57344, infinities) */
  MPTL_CUDA_TYPES
} mptl_cuda_type;

/* What the two operands of a pass are multiplied as: one type, or two of 8 bits. */
typedef struct mptl_cuda_pair {
  mptl_cuda_type first, second;
  bool inexact; /* TF32 of numbers that may have more than 11 significant bits: the library rounds them */
} mptl_cuda_pair;

/* Pairs of types that are right for a pass, the best one first: the pass gets the first one that the library
 * has code for. */
typedef struct mptl_cuda_choices {
  int n;
  mptl_cuda_pair pairs[4]; /* 8 bits, bf16, TF32, binary32 */
} mptl_cuda_choices;

/* "f32", "tf32", "bf16", "e4m3", "e5m2" */
const char *mptl_cuda_type_name(mptl_cuda_type type);

/* Bytes of an element of an operand. */
size_t mptl_cuda_type_size(mptl_cuda_type type);

/* Whether a device of that compute capability (10 * major + minor) has units for the type: TF32 and bf16 from
 * 80 on, fp8 from 89 on. Tensor cores of 89 and 90 sum fp8 products in fewer bits than binary32 has. */
bool mptl_cuda_supports(int capability, mptl_cuda_type type);

/* MPTL_EINVAL unless the operands of a product may have these types: the same type, or two of 8 bits.
 * MPTL_EUNSUPPORTED: such a device has no units for them. */
mptl_status mptl_cuda_check_types(int capability, mptl_cuda_type first, mptl_cuda_type second);

#endif

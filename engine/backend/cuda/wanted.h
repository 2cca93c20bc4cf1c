/* Passes of convolutions that are about to be asked for: whoever has all of them may make them at once. */
#ifndef MPTL_BACKEND_CUDA_WANTED_H
#define MPTL_BACKEND_CUDA_WANTED_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* What the two operands of a pass are multiplied as: one type, or two of 8 bits. */
typedef struct mptl_cuda_pair {
  mptl_cuda_type first, second;
  bool inexact; /* TF32 of numbers that may have more than 11 significant bits: the library takes what it takes of them */
} mptl_cuda_pair;

/* Pairs of types that are right for a pass, the best one first: it gets the first that the library has code for. */
typedef struct mptl_cuda_choices {
  int n;
  mptl_cuda_pair pairs[4]; /* 8 bits, bf16, TF32, binary32 */
} mptl_cuda_choices;

typedef struct mptl_cuda_wanted {
  mptl_conv_shape shape;
  mptl_pass pass;
  mptl_cuda_choices choices;
} mptl_cuda_wanted;

#endif

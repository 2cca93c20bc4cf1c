/* The key of an execution plan, and the plan as text. Both do not need cuDNN. */
#ifndef MPTL_BACKEND_CUDA_DNN_KEY_H
#define MPTL_BACKEND_CUDA_DNN_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* Everything on which a plan depends, except the device. */
typedef struct mptl_dnn_key {
  mptl_conv_shape shape; /* its bias does not matter */
  mptl_pass pass;
  mptl_cuda_type first, second;
  size_t workspace_limit; /* in bytes */
} mptl_dnn_key;

bool mptl_dnn_same_key(const mptl_dnn_key *a, const mptl_dnn_key *b);

/* Whether cuDNN compiles the engines for a key, which takes a second or more for each. */
bool mptl_dnn_is_compiled(const mptl_dnn_key *key);

enum { MPTL_DNN_ENGINE_BYTES = 32 }; /* of an engine's name, "engine 28" */

/* A plan in cuDNN's text form, with the code of a compiled engine: reading it takes milliseconds,
 * making a plan takes seconds. Or a refusal: why there is no plan. */
typedef struct mptl_dnn_text {
  bool refused; /* bytes are a refusal, and engine is not set */
  char engine[MPTL_DNN_ENGINE_BYTES];
  char *bytes; /* owned */
  size_t size;
} mptl_dnn_text;

#endif

/* Plans of convolutions that are made before they are asked for, on several threads. */
#ifndef MPTL_BACKEND_CUDA_DNN_AHEAD_H
#define MPTL_BACKEND_CUDA_DNN_AHEAD_H

#include "backend/cuda/dnn.h"
#include "backend/cuda/announced.h"

/* Makes those plans of a list that cuDNN compiles, which takes long, and that are not kept yet, on up to
 * so many threads. Creating the passes then finds the same plans that it would have made. A plan that
 * cannot be made is left to it, too. Returns how many were made. */
size_t mptl_cuda_conv_make_ahead(mptl_cuda_dnn *dnn, const mptl_cuda_announced *list, size_t n, size_t workspace_limit,
                                 int threads);

#endif

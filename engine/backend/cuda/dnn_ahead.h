/* Makes plans of convolutions before they are needed, on several threads. */
#ifndef MPTL_BACKEND_CUDA_DNN_AHEAD_H
#define MPTL_BACKEND_CUDA_DNN_AHEAD_H

#include "backend/cuda/dnn.h"
#include "backend/cuda/announced.h"

/* Makes, on up to `threads` threads, the plans of a list that cuDNN compiles, which takes long, and
 * that do not exist yet. mptl_cuda_conv_create then finds the same plans that it would have made
 * itself; if a plan cannot be made, it reports the error. Returns the number of plans made. */
size_t mptl_cuda_conv_make_ahead(mptl_cuda_dnn *dnn, const mptl_cuda_announced *list, size_t n,
                                 size_t workspace_limit, int threads);

#endif

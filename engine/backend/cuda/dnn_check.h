/* Judges of plans: whether a plan gives the right sums on its device, and how long it takes. */
#ifndef MPTL_BACKEND_CUDA_DNN_CHECK_H
#define MPTL_BACKEND_CUDA_DNN_CHECK_H

#include "backend/cuda/check.h"
#include "backend/cuda/dnn_plan.h"

/* Judges a plan that the search found. Specs have other judges. */
typedef mptl_status mptl_dnn_judge(mptl_cuda_finding *finding, const mptl_dnn_device *device,
                                   const mptl_dnn_plan *plan);

/* Runs the plan on the device, which is a GPU of this machine (check.h). */
mptl_dnn_judge mptl_dnn_check_plan;

#endif

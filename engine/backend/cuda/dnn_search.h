/* The search for a plan: one of cuDNN's engines that the rules of dnn_conv.h allow and that gives the right sums. */
#ifndef MPTL_BACKEND_CUDA_DNN_SEARCH_H
#define MPTL_BACKEND_CUDA_DNN_SEARCH_H

#include "backend/cuda/dnn_check.h"

/* Searches a plan for plan->key. judge: NULL for a device that is only described, where nothing can run.
 *
 * certain: whether another search would also find none, if there is none. Not where an
 * engine was refused, since cuDNN says the same of an engine that it does not have and of one whose
 * compilation failed for any reason; nor where sums were wrong, since the device may have been broken. */
mptl_status mptl_dnn_search_plan(mptl_dnn_plan *plan, mptl_dnn_device *device, mptl_dnn_judge *judge, bool *certain);

#endif

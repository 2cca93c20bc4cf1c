/* The search for a plan: an engine of cuDNN that the rules of dnn_conv.h allow and that gives the
 * right sums. */
#ifndef MPTL_BACKEND_CUDA_DNN_SEARCH_H
#define MPTL_BACKEND_CUDA_DNN_SEARCH_H

#include "backend/cuda/dnn_check.h"

/* Searches a plan for plan->key. judge: NULL for a device that is only described, on which nothing
 * can run.
 *
 * *certain: if no plan is found, whether another search would not find one either. False if cuDNN
 * refused an engine, because its status is the same for an engine that it does not have and for a
 * failed compilation; false if sums were wrong, because the device may have failed. */
mptl_status mptl_dnn_search_plan(mptl_dnn_plan *plan, mptl_dnn_device *device,
                                 mptl_dnn_judge *judge, bool *certain);

#endif

/* cuDNN's execution plans: how one is made, written as text and read from text. */
#ifndef MPTL_BACKEND_CUDA_DNN_PLAN_H
#define MPTL_BACKEND_CUDA_DNN_PLAN_H

#include "backend/cuda/dnn_descriptor.h"
#include "backend/cuda/dnn_device.h"
#include "backend/cuda/dnn_key.h"

/* What is known of a key: its plan, or why there is none. */
typedef struct mptl_dnn_plan {
  mptl_dnn_key key;
  cudnnBackendDescriptor_t config, plan;
  size_t workspace_bytes;
  char engine[MPTL_DNN_ENGINE_BYTES];
  char wrong[200]; /* the last engine that was skipped because its sums were wrong, and how; not in files */
  char *refusal;   /* why there is no plan; NULL: there is one */
  struct mptl_dnn_plan *next;
} mptl_dnn_plan;

void mptl_dnn_plan_destroy(mptl_dnn_plan *plan);

/* A descriptor of an execution plan for the device, and, after the caller set what it is made of, the end of making it. */
mptl_status mptl_dnn_begin_plan(cudnnBackendDescriptor_t *plan, const mptl_dnn_device *device);
mptl_status mptl_dnn_end_plan(size_t *workspace_bytes, cudnnBackendDescriptor_t plan);

/* The plan as text, whose bytes the caller frees. Not every engine of every version of cuDNN can be written. */
mptl_status mptl_dnn_write_plan(mptl_dnn_text *text, const mptl_dnn_plan *plan);

/* The plan of a text, for the device; plan->key is set, and what the text says of it is not compared.
 * MPTL_EUNSUPPORTED: it needs more workspace than the key allows. */
mptl_status mptl_dnn_read_plan(mptl_dnn_plan *plan, const mptl_dnn_device *device, const mptl_dnn_text *text);

#endif

/* cuDNN's execution plans: making them, writing them as text, reading them from text. */
#ifndef MPTL_BACKEND_CUDA_DNN_PLAN_H
#define MPTL_BACKEND_CUDA_DNN_PLAN_H

#include "backend/cuda/dnn_descriptor.h"
#include "backend/cuda/dnn_device.h"
#include "backend/cuda/dnn_key.h"

/* The plan of a key, or its refusal. */
typedef struct mptl_dnn_plan {
  mptl_dnn_key key;
  cudnnBackendDescriptor_t config, plan;
  size_t workspace_bytes;
  char engine[MPTL_DNN_ENGINE_BYTES];
  char wrong[200]; /* last engine skipped because of wrong sums, and what was wrong; not in files */
  char *refusal;   /* why there is no plan; NULL: there is one */
  struct mptl_dnn_plan *next;
} mptl_dnn_plan;

void mptl_dnn_plan_destroy(mptl_dnn_plan *plan);

/* Make a plan: begin creates a descriptor for the device, the caller sets the attributes that
 * define the plan, and end finalises it and returns its workspace. */
mptl_status mptl_dnn_begin_plan(cudnnBackendDescriptor_t *plan, const mptl_dnn_device *device);
mptl_status mptl_dnn_end_plan(size_t *workspace_bytes, cudnnBackendDescriptor_t plan);

/* Writes the plan as text, whose bytes the caller frees. Some versions of cuDNN cannot write all
 * engines. */
mptl_status mptl_dnn_write_plan(mptl_dnn_text *text, const mptl_dnn_plan *plan);

/* Makes the plan of a text for the device. The caller sets plan->key; it is not compared with the
 * text. MPTL_EUNSUPPORTED: the plan needs more workspace than the key allows. */
mptl_status mptl_dnn_read_plan(mptl_dnn_plan *plan, const mptl_dnn_device *device,
                               const mptl_dnn_text *text);

#endif

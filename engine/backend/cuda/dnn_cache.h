/* All plans and refusals of a device that were needed so far, in memory and in files, because
 * making one can take seconds. */
#ifndef MPTL_BACKEND_CUDA_DNN_CACHE_H
#define MPTL_BACKEND_CUDA_DNN_CACHE_H

#include "backend/cuda/dnn_check.h"
#include "backend/cuda/dnn_store.h"

typedef struct mptl_dnn_cache {
  mptl_dnn_device *device;
  mptl_dnn_judge *judge; /* NULL: plans are not judged, because the device is only described */
  mptl_dnn_store *store; /* NULL: no files are used */
  mptl_dnn_plan *plans;
} mptl_dnn_cache;

/* Destroys all plans, and closes the store. */
void mptl_dnn_cache_close(mptl_dnn_cache *cache);

/* Finds the plan of a key in memory, in a file or by a search; the cache owns it. mptl_conv_check
 * must accept the shape. Refuses types that cannot be combined. */
mptl_status mptl_dnn_find_plan(const mptl_dnn_plan **plan, mptl_dnn_cache *cache,
                               const mptl_dnn_key *key);

/* Returns the plan or the refusal of a key without a search. NULL: neither is known. */
const mptl_dnn_plan *mptl_dnn_recall_plan(mptl_dnn_cache *cache, const mptl_dnn_key *key);

/* Adds a plan, or a refusal, from its text; the key must not be in the cache. False: the text
 * cannot be used. */
bool mptl_dnn_take_plan(mptl_dnn_cache *cache, const mptl_dnn_key *key, const mptl_dnn_text *text);

#endif

/* All plans, and refusals, that were asked for on a device: in memory, and in files, since making one can take seconds. */
#ifndef MPTL_BACKEND_CUDA_DNN_CACHE_H
#define MPTL_BACKEND_CUDA_DNN_CACHE_H

#include "backend/cuda/dnn_check.h"
#include "backend/cuda/dnn_store.h"

typedef struct mptl_dnn_cache {
  mptl_dnn_device *device;
  mptl_dnn_judge *judge; /* NULL: plans are not judged, since the device is only described */
  mptl_dnn_store *store; /* NULL: no files are used */
  mptl_dnn_plan *plans;
} mptl_dnn_cache;

/* Drops all plans, and closes the store. */
void mptl_dnn_cache_close(mptl_dnn_cache *cache);

/* The plan of a key, from memory, a file or a search; the cache owns it. Types that do not go together
 * are refused; the shape is one that mptl_conv_check accepts. */
mptl_status mptl_dnn_find_plan(const mptl_dnn_plan **plan, mptl_dnn_cache *cache, const mptl_dnn_key *key);

/* What is known of a key without a search: its plan or its refusal. NULL: nothing. */
const mptl_dnn_plan *mptl_dnn_recall_plan(mptl_dnn_cache *cache, const mptl_dnn_key *key);

/* Adds a plan that is not there yet, from its text. False: the text cannot be used. */
bool mptl_dnn_take_plan(mptl_dnn_cache *cache, const mptl_dnn_key *key, const mptl_dnn_text *text);

#endif

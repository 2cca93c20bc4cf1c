/* Plans that are kept: until their mptl_cuda_dnn goes, and in files, since some are compiled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/dnn_store.h"

mptl_status mptl_dnn_begin_plan(cudnnBackendDescriptor_t *plan, const mptl_cuda_dnn *dnn) {
  const char *what = "execution plan";
  MPTL_TRY(mptl_dnn_status(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, plan), what));
  mptl_status status = MPTL_OK;
  if (dnn->handle != NULL)
    status = mptl_dnn_set(*plan, what, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn->handle);
#if CUDNN_VERSION >= 90800
  if (dnn->handle == NULL) status = mptl_dnn_set_descriptor(*plan, what, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, dnn->properties);
#endif
  if (status != MPTL_OK) cudnnBackendDestroyDescriptor(*plan);
  return status;
}

mptl_status mptl_dnn_end_plan(size_t *workspace_bytes, cudnnBackendDescriptor_t plan) {
  const char *what = "execution plan";
  int64_t n = 0, bytes = 0;
  MPTL_TRY(mptl_dnn_finalize(plan, what));
  MPTL_TRY(mptl_dnn_status(
      cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &bytes), what));
  *workspace_bytes = (size_t)bytes;
  return MPTL_OK;
}

static void destroy(mptl_dnn_plan *plan) {
  if (plan->plan != NULL) cudnnBackendDestroyDescriptor(plan->plan);
  if (plan->config != NULL) cudnnBackendDestroyDescriptor(plan->config);
  free(plan->refusal);
  free(plan);
}

bool mptl_dnn_same_key(const mptl_dnn_key *a, const mptl_dnn_key *b) {
  return mptl_same_products(&a->shape, &b->shape) && a->pass == b->pass && a->first == b->first && a->second == b->second &&
         a->workspace_limit == b->workspace_limit;
}

static mptl_dnn_plan *keep(mptl_cuda_dnn *dnn, mptl_dnn_plan *plan) {
  plan->next = dnn->plans;
  dnn->plans = plan;
  return plan;
}

bool mptl_dnn_take_plan(mptl_cuda_dnn *dnn, const mptl_dnn_key *key, const mptl_dnn_text *text) {
  mptl_dnn_plan *p = calloc(1, sizeof *p);
  if (p == NULL) return false;
  p->key = *key;
  if (text->refused) p->refusal = strndup(text->bytes, text->size);
  bool ok = text->refused ? p->refusal != NULL : mptl_dnn_read_plan(p, dnn, text) == MPTL_OK;
  if (ok)
    keep(dnn, p);
  else
    destroy(p);
  return ok;
}

const mptl_dnn_plan *mptl_dnn_recall_plan(mptl_cuda_dnn *dnn, const mptl_dnn_key *key) {
  const mptl_dnn_plan *p = dnn->plans;
  mptl_dnn_text text;
  while (p != NULL && !mptl_dnn_same_key(&p->key, key)) p = p->next;
  if (p != NULL || !mptl_dnn_store_read(&text, dnn->store, key)) return p;
  bool ok = mptl_dnn_take_plan(dnn, key, &text);
  free(text.bytes);
  return ok ? dnn->plans : NULL;
}

static void store(const mptl_dnn_plan *plan, const mptl_cuda_dnn *dnn) {
  mptl_dnn_text text = {.refused = plan->refusal != NULL};
  if (text.refused) text.bytes = plan->refusal, text.size = strlen(plan->refusal);
  if (dnn->store == NULL || (!text.refused && mptl_dnn_write_plan(&text, plan) != MPTL_OK)) return;
  mptl_dnn_store_write(&text, dnn->store, &plan->key);
  if (!text.refused) free(text.bytes);
}

mptl_status mptl_dnn_find_plan(const mptl_dnn_plan **plan, mptl_cuda_dnn *dnn, const mptl_dnn_key *key) {
  MPTL_TRY(mptl_cuda_check_types(dnn->traits.capability, key->first, key->second));
  *plan = mptl_dnn_recall_plan(dnn, key);
  if (*plan != NULL) return (*plan)->refusal == NULL ? MPTL_OK : mptl_fail(MPTL_EUNSUPPORTED, "%s", (*plan)->refusal);
  mptl_dnn_plan *p = calloc(1, sizeof *p);
  if (p == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  p->key = *key;
  bool certain = true;
  mptl_status status = mptl_dnn_search_plan(p, dnn, &certain);
  if (status == MPTL_EUNSUPPORTED) p->refusal = strdup(mptl_error()); /* the search is not for nothing either */
  if (status == MPTL_OK || (p->refusal != NULL && certain)) store(p, dnn);
  if (status != MPTL_OK && p->refusal == NULL) {
    destroy(p);
    return status;
  }
  *plan = keep(dnn, p);
  return status;
}

void mptl_dnn_destroy_plans(mptl_dnn_plan *plans) {
  while (plans != NULL) {
    mptl_dnn_plan *next = plans->next;
    destroy(plans);
    plans = next;
  }
}

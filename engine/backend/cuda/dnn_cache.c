/* The cache of execution plans. */
#include "backend/cuda/dnn_cache.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cuda/dnn_search.h"

static mptl_dnn_plan *keep(mptl_dnn_cache *cache, mptl_dnn_plan *plan) {
  plan->next = cache->plans;
  cache->plans = plan;
  return plan;
}

bool mptl_dnn_take_plan(mptl_dnn_cache *cache, const mptl_dnn_key *key, const mptl_dnn_text *text) {
  mptl_dnn_plan *p = calloc(1, sizeof *p);
  if (p == NULL) return false;
  p->key = *key;
  if (text->refused) p->refusal = strndup(text->bytes, text->size);
  bool ok =
      text->refused ? p->refusal != NULL : mptl_dnn_read_plan(p, cache->device, text) == MPTL_OK;
  if (ok)
    keep(cache, p);
  else
    mptl_dnn_plan_destroy(p);
  return ok;
}

const mptl_dnn_plan *mptl_dnn_recall_plan(mptl_dnn_cache *cache, const mptl_dnn_key *key) {
  const mptl_dnn_plan *p = cache->plans;
  mptl_dnn_text text;
  while (p != NULL && !mptl_dnn_same_key(&p->key, key)) p = p->next;
  if (p != NULL || !mptl_dnn_store_read(&text, cache->store, key)) return p;
  bool ok = mptl_dnn_take_plan(cache, key, &text);
  free(text.bytes);
  return ok ? cache->plans : NULL;
}

static void store(const mptl_dnn_plan *plan, const mptl_dnn_cache *cache) {
  mptl_dnn_text text = {.refused = plan->refusal != NULL};
  if (text.refused) text.bytes = plan->refusal, text.size = strlen(plan->refusal);
  if (cache->store == NULL || (!text.refused && mptl_dnn_write_plan(&text, plan) != MPTL_OK))
    return;
  mptl_dnn_store_write(&text, cache->store, &plan->key);
  if (!text.refused) free(text.bytes);
}

mptl_status mptl_dnn_find_plan(const mptl_dnn_plan **plan, mptl_dnn_cache *cache,
                               const mptl_dnn_key *key) {
  MPTL_TRY(mptl_cuda_check_types(cache->device->traits.capability, key->first, key->second));
  *plan = mptl_dnn_recall_plan(cache, key);
  if (*plan != NULL)
    return (*plan)->refusal == NULL ? MPTL_OK
                                    : mptl_fail(MPTL_EUNSUPPORTED, "%s", (*plan)->refusal);
  mptl_dnn_plan *p = calloc(1, sizeof *p);
  if (p == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  p->key = *key;
  bool certain = true;
  mptl_status status = mptl_dnn_search_plan(p, cache->device, cache->judge, &certain);
  /* Refusals are kept, because a search that finds nothing takes time, too. */
  if (status == MPTL_EUNSUPPORTED) p->refusal = strdup(mptl_error());
  if (status == MPTL_OK || (p->refusal != NULL && certain)) store(p, cache);
  if (status != MPTL_OK && p->refusal == NULL) {
    mptl_dnn_plan_destroy(p);
    return status;
  }
  *plan = keep(cache, p);
  return status;
}

void mptl_dnn_cache_close(mptl_dnn_cache *cache) {
  while (cache->plans != NULL) {
    mptl_dnn_plan *next = cache->plans->next;
    mptl_dnn_plan_destroy(cache->plans);
    cache->plans = next;
  }
  mptl_dnn_store_close(cache->store);
}

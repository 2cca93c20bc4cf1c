/* Plans: one of cuDNN's engines that the rules of dnn.h allow and that gives the right sums. Kept until their mptl_cuda_dnn goes, and in files,
 * since some are compiled. */
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

/* What the search has seen, for the message when it finds none. */
typedef struct search {
  size_t limit;
  bool tensor_cores;
  int configs, ruled_out, too_large, failed, wrong;
  char refusal[256]; /* the last reason of an engine that would have been allowed */
} search;

/* Whether the rules allow the engine of a configuration. */
static mptl_status allowed(cudnnBackendDescriptor_t config, const search *s, bool *yes) {
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t engine;
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t n = 0;
  *yes = true;
  MPTL_TRY(mptl_dnn_pool_add(&pool, &engine, CUDNN_BACKEND_ENGINE_DESCRIPTOR));
  cudnnStatus_t status =
      cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine);
  if (status == CUDNN_STATUS_SUCCESS)
    status = cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                      CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, notes);
  mptl_dnn_pool_destroy(&pool);
  MPTL_TRY(mptl_dnn_status(status, "engine"));
  for (int64_t i = 0; i < n; i++)
    if (notes[i] != CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP && !(s->tensor_cores && notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE))
      *yes = false; /* nondeterministic, fewer bits in operands or sums, sums of operands multiplied, or a note of a later day */
  return MPTL_OK;
}

static void name_engine(char *name, size_t size, cudnnBackendDescriptor_t config) {
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t engine;
  int64_t n = 0, index = -1;
  if (mptl_dnn_pool_add(&pool, &engine, CUDNN_BACKEND_ENGINE_DESCRIPTOR) != MPTL_OK) return;
  cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine);
  cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &index);
  mptl_dnn_pool_destroy(&pool);
  snprintf(name, size, "engine %lld", (long long)index);
}

/* Whether a plan gives the right sums on the device; what is wrong is noted in found. */
static mptl_status judge(bool *right, mptl_dnn_plan *found, const mptl_cuda_dnn *dnn, cudnnBackendDescriptor_t config,
                         cudnnBackendDescriptor_t plan, size_t workspace_bytes, search *s) {
  mptl_dnn_plan candidate = {.key = found->key, .plan = plan, .workspace_bytes = workspace_bytes};
  mptl_cuda_finding finding = {.right = true};
  name_engine(candidate.engine, sizeof candidate.engine, config);
  if (dnn->judge != NULL) MPTL_TRY(dnn->judge(&finding, dnn, &candidate));
  *right = finding.right;
  if (finding.right) return MPTL_OK;
  s->wrong++;
  snprintf(found->wrong, sizeof found->wrong, "%s: %s", candidate.engine, finding.wrong);
  return MPTL_OK;
}

/* The plan of a configuration, NULL if cuDNN does not have it for the device, it needs too much, or its sums are wrong. Whatever else goes wrong ends the search:
 * the next engine, or type, would be taken on this machine today and not on another one. */
static mptl_status try_config(mptl_dnn_plan *found, const mptl_cuda_dnn *dnn, cudnnBackendDescriptor_t config, search *s) {
  bool yes = false;
  s->configs++;
  MPTL_TRY(allowed(config, s, &yes));
  s->ruled_out += !yes;
  if (!yes) return MPTL_OK;
  cudnnBackendDescriptor_t plan;
  size_t bytes = 0;
  MPTL_TRY(mptl_dnn_begin_plan(&plan, dnn));
  mptl_status status = mptl_dnn_set_descriptor(plan, "execution plan", CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  if (status == MPTL_OK) status = mptl_dnn_end_plan(&bytes, plan);
  if (status == MPTL_OK && bytes <= s->limit) {
    status = judge(&yes, found, dnn, config, plan, bytes, s);
    if (status == MPTL_OK && yes) {
      found->plan = plan;
      found->workspace_bytes = bytes;
      return MPTL_OK;
    }
  } else if (status == MPTL_OK) {
    s->too_large++;
  }
  if (status == MPTL_EUNSUPPORTED) {
    s->failed++;
    snprintf(s->refusal, sizeof s->refusal, "%s", mptl_error());
  }
  cudnnBackendDestroyDescriptor(plan);
  return status == MPTL_EUNSUPPORTED ? MPTL_OK : status;
}

static mptl_status list_configs(cudnnBackendDescriptor_t *heuristic, int64_t *n, const mptl_cuda_dnn *dnn,
                                cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode, mptl_dnn_pool *pool) {
  const char *what = "heuristic";
  MPTL_TRY(mptl_dnn_pool_add(pool, heuristic, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR));
  MPTL_TRY(mptl_dnn_set_descriptor(*heuristic, what, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph));
  MPTL_TRY(mptl_dnn_set(*heuristic, what, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
#if CUDNN_VERSION >= 90800
  if (dnn->properties != NULL)
    MPTL_TRY(mptl_dnn_set_descriptor(*heuristic, what, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, dnn->properties));
#endif
  MPTL_TRY(mptl_dnn_finalize(*heuristic, what));
  return mptl_dnn_status(
      cudnnBackendGetAttribute(*heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, n, NULL), what);
}

/* The first plan among the configurations that cuDNN lists in a mode; found->plan stays NULL if there is none. */
static mptl_status search_mode(mptl_dnn_plan *found, const mptl_cuda_dnn *dnn, cudnnBackendDescriptor_t graph,
                               cudnnBackendHeurMode_t mode, search *s) {
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t heuristic, *configs = NULL;
  int64_t n = 0, made = 0;
  mptl_status status = list_configs(&heuristic, &n, dnn, graph, mode, &pool);
  if (status == MPTL_OK && n > 0 && (configs = calloc((size_t)n, sizeof *configs)) == NULL)
    status = mptl_fail(MPTL_ENOMEM, "heuristic: no memory");
  while (status == MPTL_OK && made < n) {
    status = mptl_dnn_status(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[made]), "heuristic");
    made += status == MPTL_OK;
  }
  if (status == MPTL_OK && n > 0)
    status = mptl_dnn_status(
        cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, &n, configs),
        "heuristic");
  for (int64_t i = 0; i < n && status == MPTL_OK && found->plan == NULL; i++) {
    status = try_config(found, dnn, configs[i], s);
    if (found->plan != NULL) found->config = configs[i], configs[i] = NULL;
  }
  for (int64_t i = 0; i < made; i++)
    if (configs[i] != NULL) cudnnBackendDestroyDescriptor(configs[i]);
  free(configs);
  mptl_dnn_pool_destroy(&pool);
  return status;
}

static mptl_status choose(mptl_dnn_plan *found, const mptl_cuda_dnn *dnn, cudnnBackendDescriptor_t graph, search *s) {
  static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
  mptl_status status = MPTL_OK;
  for (size_t i = 0; i < sizeof modes / sizeof *modes && status == MPTL_OK && found->plan == NULL; i++) {
    status = search_mode(found, dnn, graph, modes[i], s);
    if (status != MPTL_EUNSUPPORTED) continue;
    snprintf(s->refusal, sizeof s->refusal, "%s", mptl_error()); /* no list in this mode: the other may have one */
    status = MPTL_OK;
  }
  if (status != MPTL_OK || found->plan != NULL) return status;
  if (s->configs == 0) return mptl_fail(MPTL_EUNSUPPORTED, "cuDNN has no engine%s%s", s->refusal[0] ? ": " : "", s->refusal);
  return mptl_fail(
      MPTL_EUNSUPPORTED,
      "of cuDNN's engines, %d are not deterministic or not exact, %d need more than %zu bytes of workspace, %d give wrong "
      "sums%s%s%s%s",
      s->ruled_out, s->too_large, s->limit, s->wrong, found->wrong[0] ? "; " : "", found->wrong, s->refusal[0] ? "; " : "",
      s->refusal);
}

/* certain: whether it would come out the same another time. cuDNN's word for an engine that it lists and then does not have is also that
 * for one whose compilation failed, for what reason ever; and a device that gives wrong sums may have been out of order. */
static mptl_status search_plan(mptl_dnn_plan *plan, mptl_cuda_dnn *dnn, bool *certain) {
  const mptl_dnn_key *key = &plan->key;
  if (mptl_dnn_is_compiled(key)) MPTL_TRY(mptl_dnn_check_compiler(dnn));
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t graph;
  search s = {.limit = key->workspace_limit, .tensor_cores = key->first != MPTL_CUDA_F32};
  mptl_status status = mptl_dnn_add_graph(&pool, &graph, dnn, key);
  if (status == MPTL_OK) status = choose(plan, dnn, graph, &s);
  mptl_dnn_pool_destroy(&pool);
  *certain = s.failed == 0 && s.wrong == 0;
  if (status == MPTL_OK) name_engine(plan->engine, sizeof plan->engine, plan->config);
  return status;
}

static void destroy(mptl_dnn_plan *plan) {
  if (plan->plan != NULL) cudnnBackendDestroyDescriptor(plan->plan);
  if (plan->config != NULL) cudnnBackendDestroyDescriptor(plan->config);
  free(plan->refusal);
  free(plan);
}

bool mptl_dnn_same_key(const mptl_dnn_key *a, const mptl_dnn_key *b) {
  return memcmp(&a->shape, &b->shape, offsetof(mptl_conv_shape, bias)) == 0 && a->pass == b->pass && a->first == b->first &&
         a->second == b->second && a->workspace_limit == b->workspace_limit;
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
  mptl_status status = search_plan(p, dnn, &certain);
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

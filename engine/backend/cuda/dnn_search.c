/* The search for a plan: one of cuDNN's engines that the rules of dnn.h allow and that gives the right sums. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/dnn_graph.h"

/* The first engine in cuDNN's order is not always a good one: some took sixty times as long as the next. So up to MOST_RIGHT
 * that give the right sums are measured, and a later one is taken if it is FASTER times as fast, by GAIN_MS: so much that it
 * is hardly noise, since which engine it is shows in the last bits. Those that cuDNN compiles take a second each: more than
 * one only beside one that takes SLOW_MS. */
enum { MOST_RIGHT = 4, FASTER = 2, SLOW_MS = 3 };
static const float GAIN_MS = 0.01f;

/* A plan that may be taken. */
typedef struct candidate {
  cudnnBackendDescriptor_t config, plan;
  size_t workspace_bytes;
} candidate;

/* What the search has seen, for the message when it finds none. */
typedef struct search {
  size_t limit;
  bool tensor_cores;
  int configs, ruled_out, too_large, failed, wrong, right;
  float ms;          /* that the plan found so far takes */
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

/* Takes a plan and its configuration if it gives the right sums on the device, and is the first that does, or so much faster
 * than the one that was taken before that it is worth another order of sums. Left alone otherwise. */
static mptl_status weigh(mptl_dnn_plan *found, const mptl_cuda_dnn *dnn, const candidate *c, search *s) {
  mptl_dnn_plan plan = {.key = found->key, .plan = c->plan, .workspace_bytes = c->workspace_bytes};
  mptl_cuda_finding finding = {.right = true};
  name_engine(plan.engine, sizeof plan.engine, c->config);
  if (dnn->judge != NULL) MPTL_TRY(dnn->judge(&finding, dnn, &plan));
  if (!finding.right) {
    s->wrong++;
    snprintf(found->wrong, sizeof found->wrong, "%s: %s", plan.engine, finding.wrong);
    return MPTL_OK;
  }
  s->right++;
  if (found->plan != NULL && (finding.ms * FASTER > s->ms || s->ms - finding.ms < GAIN_MS)) return MPTL_OK;
  if (found->plan != NULL) cudnnBackendDestroyDescriptor(found->plan), cudnnBackendDestroyDescriptor(found->config);
  found->plan = c->plan;
  found->config = c->config;
  found->workspace_bytes = c->workspace_bytes;
  snprintf(found->engine, sizeof found->engine, "%s", plan.engine);
  s->ms = finding.ms;
  return MPTL_OK;
}

/* Takes or leaves the plan of a configuration, which is found's if it is taken. It is left if cuDNN does not have it for the
 * device, or it needs too much. Whatever else goes wrong ends the search: the next engine, or type, would be taken on this
 * machine today and not on another one. */
static mptl_status try_config(mptl_dnn_plan *found, const mptl_cuda_dnn *dnn, cudnnBackendDescriptor_t config, search *s) {
  bool yes = false;
  s->configs++;
  MPTL_TRY(allowed(config, s, &yes));
  s->ruled_out += !yes;
  if (!yes) return MPTL_OK;
  candidate c = {.config = config};
  MPTL_TRY(mptl_dnn_begin_plan(&c.plan, dnn));
  mptl_status status = mptl_dnn_set_descriptor(c.plan, "execution plan", CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  if (status == MPTL_OK) status = mptl_dnn_end_plan(&c.workspace_bytes, c.plan);
  if (status == MPTL_OK && c.workspace_bytes > s->limit)
    s->too_large++;
  else if (status == MPTL_OK)
    status = weigh(found, dnn, &c, s);
  if (status == MPTL_EUNSUPPORTED) {
    s->failed++;
    snprintf(s->refusal, sizeof s->refusal, "%s", mptl_error());
  }
  if (found->plan != c.plan) cudnnBackendDestroyDescriptor(c.plan);
  return status == MPTL_EUNSUPPORTED ? MPTL_OK : status;
}

/* Whether another engine is to be tried: in search of one that is right, or of a faster one where that costs little. */
static bool goes_on(const mptl_dnn_plan *found, const mptl_cuda_dnn *dnn, const search *s) {
  if (found->plan == NULL) return true;
  if (dnn->judge == NULL || s->right == MOST_RIGHT) return false; /* nothing is measured, or enough */
  return !mptl_dnn_is_compiled(&found->key) || s->ms > SLOW_MS;
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

/* A plan among the configurations that cuDNN lists in a mode; found->plan stays NULL if there is none. */
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
  for (int64_t i = 0; i < n && status == MPTL_OK && goes_on(found, dnn, s); i++) {
    status = try_config(found, dnn, configs[i], s);
    if (found->config == configs[i]) configs[i] = NULL;
    if (found->plan != NULL) status = MPTL_OK; /* there is one, whatever is the matter with another */
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

mptl_status mptl_dnn_search_plan(mptl_dnn_plan *plan, mptl_cuda_dnn *dnn, bool *certain) {
  const mptl_dnn_key *key = &plan->key;
  if (mptl_dnn_is_compiled(key)) MPTL_TRY(mptl_dnn_check_compiler(dnn));
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t graph;
  search s = {.limit = key->workspace_limit, .tensor_cores = key->first != MPTL_CUDA_F32};
  mptl_status status = mptl_dnn_add_graph(&pool, &graph, dnn, key);
  if (status == MPTL_OK) status = choose(plan, dnn, graph, &s);
  mptl_dnn_pool_destroy(&pool);
  *certain = s.failed == 0 && s.wrong == 0;
  return status;
}

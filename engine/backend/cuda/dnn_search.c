/* Searches cuDNN's engines for a plan. */
#include "backend/cuda/dnn_search.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/dnn_compiler.h"
#include "backend/cuda/dnn_graph.h"

/* The first engine in cuDNN's order is not always a good one: some took sixty times as long as the
 * next. So up to MOST_RIGHT engines with the right sums are timed. A later one is chosen if it is
 * FASTER times as fast and saves GAIN_MS: a smaller gain may be noise, and another engine changes
 * the last bits of results. Compiling an engine takes a second, so a second one is compiled only if
 * a run of the first takes more than SLOW_MS. */
enum { MOST_RIGHT = 4, FASTER = 2, SLOW_MS = 3 };
static const float GAIN_MS = 0.01f;

/* A plan that may be chosen. */
typedef struct candidate {
  cudnnBackendDescriptor_t config, plan;
  size_t workspace_bytes;
} candidate;

/* The state of the search, and its counts for the message if it finds no plan. */
typedef struct search {
  mptl_dnn_judge *judge;
  size_t limit;
  bool tensor_cores;
  int configs, ruled_out, too_large, failed, wrong, right;
  float ms;          /* time of a run of the best plan so far */
  char refusal[256]; /* why cuDNN refused the last of the allowed engines */
} search;

/* Whether the rules allow the engine of a configuration. */
static mptl_status allowed(cudnnBackendDescriptor_t config, const search *s, bool *yes) {
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t engine;
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t n = 0;
  *yes = true;
  MPTL_TRY(mptl_dnn_pool_add(&pool, &engine, CUDNN_BACKEND_ENGINE_DESCRIPTOR));
  cudnnStatus_t status = cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine);
  if (status == CUDNN_STATUS_SUCCESS)
    status = cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                      CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                                      &n, notes);
  mptl_dnn_pool_destroy(&pool);
  MPTL_TRY(mptl_dnn_status(status, "engine"));
  /* All other notes exclude the engine: it is not deterministic, has fewer bits in operands or
   * sums, adds operands before it multiplies them, or has a note that only a newer cuDNN knows. */
  for (int64_t i = 0; i < n; i++)
    if (notes[i] != CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP &&
        !(s->tensor_cores && notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE))
      *yes = false;
  return MPTL_OK;
}

static void name_engine(char *name, size_t size, cudnnBackendDescriptor_t config) {
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t engine;
  int64_t n = 0, index = -1;
  if (mptl_dnn_pool_add(&pool, &engine, CUDNN_BACKEND_ENGINE_DESCRIPTOR) != MPTL_OK) return;
  cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                           &n, &engine);
  cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &index);
  mptl_dnn_pool_destroy(&pool);
  snprintf(name, size, "engine %lld", (long long)index);
}

/* Judges one plan of a device at a time: a plan may need much memory, and two at once would disturb
 * each other's times. */
static mptl_status judge_alone(mptl_cuda_finding *finding, mptl_dnn_judge *judge,
                               const mptl_dnn_device *device, const mptl_dnn_plan *plan) {
  pthread_mutex_lock(device->turn);
  mptl_status status = judge(finding, device, plan);
  pthread_mutex_unlock(device->turn);
  return status;
}

/* Chooses a plan and its configuration if it gives the right sums on the device and is the first
 * that does, or is so much faster than the plan chosen before that another order of sums is worth
 * it. */
static mptl_status weigh(mptl_dnn_plan *found, const mptl_dnn_device *device, const candidate *c,
                         search *s) {
  mptl_dnn_plan plan = {.key = found->key, .plan = c->plan, .workspace_bytes = c->workspace_bytes};
  mptl_cuda_finding finding = {.right = true};
  name_engine(plan.engine, sizeof plan.engine, c->config);
  if (s->judge != NULL) MPTL_TRY(judge_alone(&finding, s->judge, device, &plan));
  if (!finding.right) {
    s->wrong++;
    snprintf(found->wrong, sizeof found->wrong, "%s: %s", plan.engine, finding.wrong);
    return MPTL_OK;
  }
  s->right++;
  if (found->plan != NULL && (finding.ms * FASTER > s->ms || s->ms - finding.ms < GAIN_MS))
    return MPTL_OK;
  if (found->plan != NULL)
    cudnnBackendDestroyDescriptor(found->plan), cudnnBackendDestroyDescriptor(found->config);
  found->plan = c->plan;
  found->config = c->config;
  found->workspace_bytes = c->workspace_bytes;
  snprintf(found->engine, sizeof found->engine, "%s", plan.engine);
  s->ms = finding.ms;
  return MPTL_OK;
}

/* Tries the plan of a configuration; if it is chosen, found owns both. It is skipped if cuDNN does
 * not have the engine for the device, or the plan needs too much workspace. Every other failure
 * ends the search: otherwise a temporary failure would make this machine use another engine, or
 * type, than other machines. */
static mptl_status try_config(mptl_dnn_plan *found, const mptl_dnn_device *device,
                              cudnnBackendDescriptor_t config, search *s) {
  bool yes = false;
  s->configs++;
  MPTL_TRY(allowed(config, s, &yes));
  s->ruled_out += !yes;
  if (!yes) return MPTL_OK;
  candidate c = {.config = config};
  MPTL_TRY(mptl_dnn_begin_plan(&c.plan, device));
  mptl_status status = mptl_dnn_set_descriptor(c.plan, "execution plan",
                                               CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  if (status == MPTL_OK) status = mptl_dnn_end_plan(&c.workspace_bytes, c.plan);
  if (status == MPTL_OK && c.workspace_bytes > s->limit)
    s->too_large++;
  else if (status == MPTL_OK)
    status = weigh(found, device, &c, s);
  if (status == MPTL_EUNSUPPORTED) {
    s->failed++;
    snprintf(s->refusal, sizeof s->refusal, "%s", mptl_error());
  }
  if (found->plan != c.plan) cudnnBackendDestroyDescriptor(c.plan);
  return status == MPTL_EUNSUPPORTED ? MPTL_OK : status;
}

/* Whether to try another engine: no engine is right yet, or a faster one may be found with little
 * effort. */
static bool is_worth_another(const mptl_dnn_plan *found, const search *s) {
  if (found->plan == NULL) return true;
  if (s->judge == NULL || s->right == MOST_RIGHT) return false; /* no times, or enough */
  return !mptl_dnn_is_compiled(&found->key) || s->ms > SLOW_MS;
}

static mptl_status list_configs(cudnnBackendDescriptor_t *heuristic, int64_t *n,
                                const mptl_dnn_device *device, cudnnBackendDescriptor_t graph,
                                cudnnBackendHeurMode_t mode, mptl_dnn_pool *pool) {
  const char *what = "heuristic";
  MPTL_TRY(mptl_dnn_pool_add(pool, heuristic, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR));
  MPTL_TRY(mptl_dnn_set_descriptor(*heuristic, what, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph));
  MPTL_TRY(
      mptl_dnn_set(*heuristic, what, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
#if CUDNN_VERSION >= 90800
  if (device->properties != NULL)
    MPTL_TRY(mptl_dnn_set_descriptor(*heuristic, what, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                                     device->properties));
#endif
  MPTL_TRY(mptl_dnn_finalize(*heuristic, what));
  return mptl_dnn_status(cudnnBackendGetAttribute(*heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, n, NULL),
                         what);
}

/* Searches the configurations that cuDNN lists in a mode. found->plan stays NULL if there is no
 * plan. */
static mptl_status search_mode(mptl_dnn_plan *found, const mptl_dnn_device *device,
                               cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
                               search *s) {
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t heuristic, *configs = NULL;
  int64_t n = 0, made = 0;
  mptl_status status = list_configs(&heuristic, &n, device, graph, mode, &pool);
  if (status == MPTL_OK && n > 0 && (configs = calloc((size_t)n, sizeof *configs)) == NULL)
    status = mptl_fail(MPTL_ENOMEM, "heuristic: no memory");
  while (status == MPTL_OK && made < n) {
    status = mptl_dnn_status(
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[made]),
        "heuristic");
    made += status == MPTL_OK;
  }
  if (status == MPTL_OK && n > 0)
    status =
        mptl_dnn_status(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, n, &n, configs),
                        "heuristic");
  for (int64_t i = 0; i < n && status == MPTL_OK && is_worth_another(found, s); i++) {
    status = try_config(found, device, configs[i], s);
    if (found->config == configs[i]) configs[i] = NULL;
    if (found->plan != NULL) status = MPTL_OK; /* failures of further engines do not matter */
  }
  for (int64_t i = 0; i < made; i++)
    if (configs[i] != NULL) cudnnBackendDestroyDescriptor(configs[i]);
  free(configs);
  mptl_dnn_pool_destroy(&pool);
  return status;
}

static mptl_status choose(mptl_dnn_plan *found, const mptl_dnn_device *device,
                          cudnnBackendDescriptor_t graph, search *s) {
  static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
  mptl_status status = MPTL_OK;
  for (size_t i = 0; i < sizeof modes / sizeof *modes && status == MPTL_OK && found->plan == NULL;
       i++) {
    status = search_mode(found, device, graph, modes[i], s);
    if (status != MPTL_EUNSUPPORTED) continue;
    /* No list in this mode; the other mode may have one. */
    snprintf(s->refusal, sizeof s->refusal, "%s", mptl_error());
    status = MPTL_OK;
  }
  if (status != MPTL_OK || found->plan != NULL) return status;
  if (s->configs == 0)
    return mptl_fail(MPTL_EUNSUPPORTED, "cuDNN has no engine%s%s", s->refusal[0] ? ": " : "",
                     s->refusal);
  return mptl_fail(MPTL_EUNSUPPORTED,
                   "of cuDNN's engines, %d are not deterministic or not exact, %d need more than "
                   "%zu bytes of workspace, %d give wrong "
                   "sums%s%s%s%s",
                   s->ruled_out, s->too_large, s->limit, s->wrong, found->wrong[0] ? "; " : "",
                   found->wrong, s->refusal[0] ? "; " : "", s->refusal);
}

mptl_status mptl_dnn_search_plan(mptl_dnn_plan *plan, mptl_dnn_device *device,
                                 mptl_dnn_judge *judge, bool *certain) {
  const mptl_dnn_key *key = &plan->key;
  if (mptl_dnn_is_compiled(key)) MPTL_TRY(mptl_dnn_check_compiler(device));
  mptl_dnn_pool pool = {.n = 0};
  cudnnBackendDescriptor_t graph;
  search s = {
      .judge = judge, .limit = key->workspace_limit, .tensor_cores = key->first != MPTL_CUDA_F32};
  mptl_status status = mptl_dnn_add_graph(&pool, &graph, device, key);
  if (status == MPTL_OK) status = choose(plan, device, graph, &s);
  mptl_dnn_pool_destroy(&pool);
  *certain = s.failed == 0 && s.wrong == 0;
  return status;
}

/* The calling thread uses the given mptl_cuda_dnn, and each other thread makes one. Their plans are
 * handed over as text, so that every plan in use belongs to the given object.
 *
 * Only compiled plans are worth a thread. A part of NVRTC, which compiles for cuDNN, runs on one
 * thread at a time: it takes a third of the processor time of ResNet-18's plans in bf16 (CUDA
 * 13.0). So threads are at most three times as fast as one. */
#include "backend/cuda/dnn_ahead.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "backend/cuda/dnn_cache.h"

/* A plan to be made: for the first of the choices, from `choice` on, for which cuDNN has an
 * engine. */
typedef struct task {
  const mptl_cuda_announced *announced;
  int choice;
  mptl_dnn_text text; /* of the plan, if another thread made it */
  bool made;
} task;

typedef struct work {
  mptl_cuda_dnn *dnn;    /* the calling thread's */
  mptl_dnn_cache *plans; /* its plans */
  size_t workspace_limit;
  task *tasks;
  size_t n;
  atomic_size_t next;
} work;

static mptl_dnn_key key_of(const work *w, const task *t) {
  const mptl_cuda_pair *pair = &t->announced->choices.pairs[t->choice];
  size_t limit = mptl_cuda_workspace_limit(&t->announced->shape, &w->plans->device->traits,
                                           w->workspace_limit);
  return (mptl_dnn_key){t->announced->shape, t->announced->pass, pair->first, pair->second, limit};
}

/* ---- Which plans ---- */

/* Whether a plan must be made that takes long. Skips the choices that are known to have no plan:
 * t->choice becomes the next one. */
static bool is_missing(const work *w, task *t) {
  for (; t->choice < t->announced->choices.n; t->choice++) {
    mptl_dnn_key key = key_of(w, t);
    const mptl_dnn_plan *known = mptl_dnn_recall_plan(w->plans, &key);
    if (known == NULL) return mptl_dnn_is_compiled(&key);
    if (known->refusal == NULL) return false;
  }
  return false;
}

static bool is_listed(const work *w, const task *t) {
  mptl_dnn_key key = key_of(w, t);
  for (size_t i = 0; i < w->n; i++) {
    mptl_dnn_key other = key_of(w, &w->tasks[i]);
    if (mptl_dnn_same_key(&key, &other)) return true;
  }
  return false;
}

/* ---- Making plans ---- */

static mptl_status try_choice(const mptl_dnn_plan **plan, mptl_dnn_cache *plans,
                              const mptl_dnn_key *key) {
  MPTL_TRY(mptl_conv_check(&key->shape));
  return mptl_dnn_find_plan(plan, plans, key);
}

static void make(const work *w, task *t, mptl_dnn_cache *plans) {
  for (; t->choice < t->announced->choices.n; t->choice++) {
    mptl_dnn_key key = key_of(w, t);
    const mptl_dnn_plan *plan;
    mptl_status status = try_choice(&plan, plans, &key);
    if (status == MPTL_EUNSUPPORTED) continue;
    t->made =
        status == MPTL_OK && (plans == w->plans || mptl_dnn_write_plan(&t->text, plan) == MPTL_OK);
    return;
  }
}

static void make_all(work *w, mptl_cuda_dnn *dnn) {
  for (size_t i = atomic_fetch_add(&w->next, 1); i < w->n; i = atomic_fetch_add(&w->next, 1))
    make(w, &w->tasks[i], mptl_cuda_dnn_plans(dnn));
}

static void *run(void *argument) {
  work *w = argument;
  mptl_cuda_dnn *own;
  if (mptl_cuda_dnn_create_again(&own, w->dnn) != MPTL_OK) return NULL;
  make_all(w, own);
  mptl_cuda_dnn_destroy(own);
  return NULL;
}

/* If a thread cannot be started or cannot open the device, the other threads make its plans. */
static void make_on_threads(work *w, int threads) {
  enum { MOST = 64 };
  pthread_t others[MOST];
  int n = 0, most = threads - 1 < MOST ? threads - 1 : MOST;
  if (most > 0 && (size_t)most >= w->n) most = (int)w->n - 1;
  while (n < most && pthread_create(&others[n], NULL, run, w) == 0) n++;
  make_all(w, w->dnn);
  while (n > 0) pthread_join(others[--n], NULL);
}

size_t mptl_cuda_conv_make_ahead(mptl_cuda_dnn *dnn, const mptl_cuda_announced *list, size_t n,
                                 size_t workspace_limit, int threads) {
  work w = {.dnn = dnn,
            .plans = mptl_cuda_dnn_plans(dnn),
            .workspace_limit = workspace_limit,
            .tasks = calloc(n + 1, sizeof(task))};
  size_t made = 0;
  for (size_t i = 0; i < n && w.tasks != NULL; i++) {
    task *t = &w.tasks[w.n];
    *t = (task){.announced = &list[i]};
    w.n += is_missing(&w, t) && !is_listed(&w, t);
  }
  if (w.n > 1) make_on_threads(&w, threads); /* a single plan is made when it is needed */
  for (size_t i = 0; i < w.n; i++) {
    if (!w.tasks[i].made) continue;
    mptl_dnn_key key = key_of(&w, &w.tasks[i]);
    mptl_dnn_text *text = &w.tasks[i].text;
    made += text->bytes == NULL || mptl_dnn_take_plan(w.plans, &key, text);
    free(text->bytes);
  }
  free(w.tasks);
  return made;
}

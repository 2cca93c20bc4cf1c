/* The CPU backend: stages, whole arrays, memory, the device. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "kernels/cpu/table.h"
#include "mptl/machine.h"

/* The functions of a call's operator. */
static const mptl_cpu_op *row(const mptl_call *call) { return mptl_cpu_ops[call->op->kind->id]; }

static mptl_status op_create(mptl_device *device, void **state, const mptl_operator *op) {
  mptl_call call;
  (void)device;
  *state = NULL;
  mptl_call_of(&call, &(mptl_member){.is = op}, NULL, NULL);
  return row(&call)->create ? row(&call)->create(state, &call) : MPTL_OK;
}

static void op_destroy(mptl_device *device, const mptl_operator *op) {
  const mptl_cpu_op *r = mptl_cpu_ops[op->op->kind->id];
  (void)device;
  if (r->destroy) r->destroy(op->state);
}

static mptl_status prepare(mptl_device *device, const mptl_stage *stage, size_t *scratch_bytes) {
  mptl_call call;
  (void)device;
  mptl_call_of(&call, &stage->members[0], NULL, NULL);
  const mptl_cpu_op *r = row(&call);
  *scratch_bytes = r->pointwise != NULL ? mptl_fused_scratch_bytes(stage)
                   : r->scratch_bytes   ? r->scratch_bytes(&call)
                                        : 0;
  return r->prepare ? mptl_in_operator(r->prepare(&call, scratch_bytes), call.op) : MPTL_OK;
}

static mptl_status run_call(const mptl_call *call, bool forward) {
  return mptl_in_operator(forward ? row(call)->forward(call) : row(call)->backward(call), call->op);
}

static mptl_status run(mptl_device *device, const mptl_stage *stage, const mptl_step *step,
                       bool forward) {
  mptl_call call;
  (void)device;
  mptl_call_of(&call, &stage->members[0], step, stage->scratch);
  return row(&call)->pointwise != NULL ? mptl_fused_run(stage, step, forward)
                                       : run_call(&call, forward);
}

/* An operator that is not pointwise runs as usual, and its sinks find their ranges instead of
 * storing results. */
static mptl_status find_ranges(mptl_device *device, const mptl_stage *stage, const mptl_step *step,
                               bool forward, int i, float *largest) {
  mptl_call call;
  mptl_round_stats found[MPTL_MAX_INPUTS] = {{0}};
  mptl_sink *sinks;
  (void)device;
  mptl_call_of(&call, &stage->members[i], step, stage->scratch);
  if (row(&call)->pointwise != NULL)
    return mptl_fused_find_ranges(stage, step, forward, i, largest);
  mptl_call_find_ranges(&call, forward, found);
  MPTL_TRY(run_call(&call, forward));
  for (int k = mptl_call_sinks(&call, forward, &sinks) - 1; k >= 0; k--)
    largest[k] = found[k].max_abs;
  return MPTL_OK;
}

/* ---- Whole arrays ---- */

enum { CHUNK = 16384 }; /* elements that a thread takes at once */

static void round_array(int threads, const mptl_rounding *a) {
#pragma omp parallel num_threads(threads) if (a->n > CHUNK)
  {
    mptl_round_stats local = {0};
#pragma omp for schedule(static)
    for (size_t at = 0; at < a->n; at += CHUNK)
      mptl_round_f32(a->dst + at, a->src + at, a->n - at < CHUNK ? a->n - at : CHUNK, a->rounder,
                     a->key, a->index0 + at, &local);
#pragma omp critical(mptl_round_array)
    if (a->stats != NULL) mptl_stats_merge(a->stats, &local);
  }
}

static void count_exponents(int threads, mptl_exponents *exponents, const float *x, size_t n) {
#pragma omp parallel for num_threads(threads) schedule(static) if (n > CHUNK)
  for (size_t at = 0; at < n; at += CHUNK)
    mptl_add_exponents(exponents, x + at, n - at < CHUNK ? n - at : CHUNK);
}

static mptl_status round_arrays(mptl_device *device, const mptl_rounding *arrays, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (arrays[i].exponents != NULL)
      count_exponents(device->threads, arrays[i].exponents, arrays[i].src, arrays[i].n);
    if (arrays[i].dst != NULL) round_array(device->threads, &arrays[i]);
  }
  return MPTL_OK;
}

static mptl_status fill(mptl_device *device, const mptl_sink *s, float value, size_t n) {
  (void)device;
  for (size_t i = 0; i < n; i++) {
    if (s->exponents != NULL) mptl_count_exponent(s->exponents, mptl_f32_bits(value));
    if (s->size < sizeof(float))
      mptl_encode_f32((char *)s->data + i * s->size, &value, 1, s->rounder, s->key, s->index0 + i,
                      s->stats);
    else
      mptl_round_f32((float *)s->data + i, &value, 1, s->rounder, s->key, s->index0 + i, s->stats);
  }
  return MPTL_OK;
}

static mptl_status max_abs(mptl_device *device, float *largest, const float *x, size_t n) {
  float most = 0.0f;
#pragma omp parallel for num_threads(device->threads) schedule(static) \
    reduction(max                                                      \
              : most) if (n > CHUNK)
  for (size_t at = 0; at < n; at += CHUNK) {
    float here = mptl_max_abs_f32(x + at, n - at < CHUNK ? n - at : CHUNK);
    if (here > most) most = here;
  }
  *largest = most;
  return MPTL_OK;
}

struct mptl_trained_list {
  size_t count;
  mptl_trained params[];
};

static mptl_status list_create(mptl_device *device, mptl_trained_list **list,
                               const mptl_trained *params, size_t count) {
  (void)device;
  *list = malloc(sizeof **list + count * sizeof *params);
  if (*list == NULL) return mptl_fail(MPTL_ENOMEM, "model: no memory");
  (*list)->count = count;
  if (count > 0) memcpy((*list)->params, params, count * sizeof *params);
  return MPTL_OK;
}

static void list_destroy(mptl_device *device, mptl_trained_list *list) {
  (void)device;
  free(list);
}

static bool all_finite(int threads, const float *x, size_t n) {
  bool finite = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : finite) if (n > CHUNK)
  for (size_t at = 0; at < n; at += CHUNK)
    finite = finite && mptl_layers()->all_finite(x + at, n - at < CHUNK ? n - at : CHUNK);
  return finite;
}

static mptl_status find_nonfinite(mptl_device *device, uint32_t *flag,
                                  const mptl_trained_list *list) {
  for (size_t i = 0; i < list->count && *flag == 0; i++)
    if (!all_finite(device->threads, list->params[i].g, list->params[i].n)) *flag = 1;
  return MPTL_OK;
}

static void update_param(int threads, const mptl_trained *t, mptl_update_kernel *kernel,
                         const mptl_factors *factors) {
#pragma omp parallel for num_threads(threads) schedule(static) if (t->n > CHUNK)
  for (size_t at = 0; at < t->n; at += CHUNK) {
    float *state[MPTL_MAX_STATES];
    for (int k = 0; k < MPTL_MAX_STATES; k++)
      state[k] = t->state[k] != NULL ? t->state[k] + at : NULL;
    kernel(t->p + at, state, t->g + at, t->n - at < CHUNK ? t->n - at : CHUNK, factors);
  }
}

static mptl_status update(mptl_device *device, const mptl_trained_list *list, mptl_optimizer_id id,
                          const mptl_factors *factors, int n_groups) {
  (void)n_groups;
  for (size_t i = 0; i < list->count; i++)
    update_param(device->threads, &list->params[i], mptl_cpu_kernels_get()->updates[id],
                 &factors[list->params[i].group]);
  return MPTL_OK;
}

/* On one thread, so that the order of the sum does not depend on threads. */
static mptl_status sum_squares(mptl_device *device, double *sum, mptl_trained_list *list) {
  (void)device;
  *sum = 0;
  for (size_t i = 0; i < list->count; i++) {
    const mptl_trained *t = &list->params[i];
    for (size_t k = 0; k < t->n; k++) *sum += (double)t->g[k] * (double)t->g[k];
  }
  return MPTL_OK;
}

/* ---- Memory ---- */

static void *allocate(mptl_device *device, size_t bytes) {
  (void)device;
  return mptl_memory_alloc(bytes);
}

static void release(mptl_device *device, void *p) {
  (void)device;
  mptl_memory_free(p);
}

static mptl_status copy(mptl_device *device, void *to, const void *from, size_t bytes) {
  (void)device;
  memcpy(to, from, bytes);
  return MPTL_OK;
}

static mptl_status zero(mptl_device *device, void *p, size_t bytes) {
  (void)device;
  memset(p, 0, bytes);
  return MPTL_OK;
}

static mptl_status synchronize(mptl_device *device) {
  (void)device;
  return MPTL_OK;
}

static void *host_alloc(mptl_device *device, size_t bytes) {
  (void)device;
  return mptl_device_host_alloc(NULL, bytes);
}

static void host_free(mptl_device *device, void *p) {
  (void)device;
  mptl_device_host_free(NULL, p);
}

/* ---- The device ---- */

static void close_device(mptl_device *device) { free(device); }

static const mptl_backend backend = {
    .is_host = true,
    .max_stage_ops = MPTL_STAGE_OPS,
    .close = close_device,
    .alloc = allocate,
    .free = release,
    .upload = copy,
    .download = copy,
    .zero = zero,
    .synchronize = synchronize,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .lend = copy,
    .op_create = op_create,
    .op_destroy = op_destroy,
    .prepare = prepare,
    .compute = mptl_cpu_compute,
    .run = run,
    .find_ranges = find_ranges,
    .round = round_arrays,
    .fill = fill,
    .max_abs = max_abs,
    .list_create = list_create,
    .list_destroy = list_destroy,
    .find_nonfinite = find_nonfinite,
    .update = update,
    .sum_squares = sum_squares,
    .find_peaks = mptl_cpu_find_peaks,
};

/* No more threads than OMP_THREAD_LIMIT allows. oneDNN starts as many threads as a device has, and
 * waits for ever if OpenMP gives it fewer. */
mptl_status mptl_cpu_open(mptl_device **device, int threads) {
  int limit = omp_get_thread_limit();
  if (threads == 0) threads = mptl_default_threads("");
  *device = calloc(1, sizeof **device);
  if (*device == NULL) return mptl_fail(MPTL_ENOMEM, "device cpu: no memory");
  **device = (mptl_device){
      .backend = &backend, .name = "cpu", .threads = threads < limit ? threads : limit, .users = 1};
  return MPTL_OK;
}

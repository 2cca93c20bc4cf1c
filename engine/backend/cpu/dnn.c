/* The three passes of an operator on oneDNN: created once, run many times. See dnn.h. */
#include "backend/cpu/dnn.h"

#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/dnn_op.h"
#include "core/memory.h"

/* The operands by role. Which of them is the result depends on the pass. */
enum role { X, W, B, Y, SCRATCH, ROLES };
static const int arguments[MPTL_PASSES][ROLES] = {
    {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD},
    {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, 0, DNNL_ARG_DIFF_DST, DNNL_ARG_SCRATCHPAD},
    {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS, DNNL_ARG_DIFF_DST,
     DNNL_ARG_SCRATCHPAD}};

struct pass {
  dnnl_primitive_t primitive,
      reorder; /* reorder: weights to oneDNN's layout, backward weights from it; NULL: not needed */
  dnnl_memory_t memory[ROLES]; /* NULL where the pass has no such operand */
  dnnl_memory_t plain,
      reorder_scratch; /* of the reorder: the weights in PyTorch's layout, its scratchpad */
  size_t weights_bytes,
      scratchpad_bytes; /* oneDNN's layout of the weights; the larger of the two scratchpads */
};

struct mptl_dnn {
  mptl_shape_name name;
  bool bias;
  int threads; /* oneDNN fixes the division of work when a primitive is created */
  char *scratch;
  struct pass pass[MPTL_PASSES];
};

/* The engine and stream of the process: the CPU, with calls that return when they are done. They
 * are never destroyed, because oneDNN's static variables may be gone before an exit handler
 * runs. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static dnnl_engine_t engine;
static dnnl_stream_t stream;
static dnnl_primitive_attr_t attributes;
static dnnl_status_t engine_status;
static char version[32];

static void start(void) {
  const dnnl_version_t *v = dnnl_version();
  snprintf(version, sizeof version, "%d.%d.%d", v->major, v->minor, v->patch);
  engine_status = dnnl_engine_create(&engine, dnnl_cpu, 0);
  if (engine_status == dnnl_success)
    engine_status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
  if (engine_status == dnnl_success) engine_status = mptl_dnnl_attributes(&attributes);
}

static mptl_status failed(dnnl_status_t status, const char *name, const char *what) {
  mptl_status code = status == dnnl_out_of_memory   ? MPTL_ENOMEM
                     : status == dnnl_unimplemented ? MPTL_EUNSUPPORTED
                                                    : MPTL_EBACKEND;
  if (code == MPTL_ENOMEM) return mptl_fail(code, "%s: %s: no memory for oneDNN", name, what);
  return mptl_fail(code, "%s: %s: oneDNN says %s", name, what, dnnl_status2str(status));
}

/* Sets the calling thread's number of OpenMP threads, which oneDNN uses. Returns the old number,
 * which the caller must restore. */
static int use_threads(int threads) {
  int before = omp_get_max_threads();
  if (before != threads) omp_set_num_threads(threads);
  return before;
}

static dnnl_data_type_t operand_type(mptl_compute compute) {
  return compute == MPTL_COMPUTE_BF16 ? dnnl_bf16 : dnnl_f32;
}

static void destroy_operands(mptl_dnnl_operands *o) {
  mptl_md_destroy(o->x);
  mptl_md_destroy(o->weights);
  mptl_md_destroy(o->bias);
  mptl_md_destroy(o->y);
}

/* Creates the memory descriptors of a pass's operands. The result is binary32; oneDNN picks the
 * layout of the weights. */
static dnnl_status_t create_operands(mptl_dnnl_operands *o, const mptl_dnn_problem *p,
                                     mptl_pass pass, mptl_compute compute) {
  dnnl_data_type_t type = operand_type(compute);
  dnnl_status_t status = mptl_md_create(&o->x, p->x_ndims, p->x,
                                        pass == MPTL_BACKWARD_DATA ? dnnl_f32 : type, p->x_tag);
  if (status == dnnl_success)
    status = mptl_md_create(&o->weights, p->weights_ndims, p->weights,
                            pass == MPTL_BACKWARD_WEIGHTS ? dnnl_f32 : type, dnnl_format_tag_any);
  if (status == dnnl_success)
    status =
        mptl_md_create(&o->y, p->y_ndims, p->y, pass == MPTL_FORWARD ? dnnl_f32 : type, p->y_tag);
  if (status == dnnl_success && p->bias && pass != MPTL_BACKWARD_DATA) {
    const dnnl_dims_t dims = {p->y[1]};
    status = mptl_md_create(&o->bias, 1, dims, dnnl_f32, dnnl_x);
  }
  return status;
}

/* Creates the primitive descriptor of a pass. oneDNN wants the descriptor of the forward pass for a
 * backward pass. */
static dnnl_status_t describe_pass(dnnl_primitive_desc_t *pd, const mptl_dnn_problem *p,
                                   mptl_pass pass, mptl_compute compute, bool training) {
  mptl_dnnl_operands operands = {NULL, NULL, NULL, NULL};
  dnnl_primitive_desc_t forward = NULL;
  dnnl_status_t status = dnnl_success;
  if (pass != MPTL_FORWARD) status = describe_pass(&forward, p, MPTL_FORWARD, compute, true);
  if (status == dnnl_success) status = create_operands(&operands, p, pass, compute);
  if (status == dnnl_success)
    status = mptl_dnnl_describe(pd, pass, &operands, p->windowed ? &p->window : NULL, training,
                                forward, attributes, engine);
  destroy_operands(&operands);
  if (forward != NULL) dnnl_primitive_desc_destroy(forward);
  return status;
}

/* Creates a memory object without memory, unless the descriptor has 0 bytes. */
static dnnl_status_t create_memory(dnnl_memory_t *memory, mptl_const_md md) {
  return dnnl_memory_desc_get_size(md) == 0
             ? dnnl_success
             : dnnl_memory_create(memory, md, engine, DNNL_MEMORY_NONE);
}

static dnnl_status_t create_reorder(struct pass *pass, mptl_pass which, mptl_const_md plain,
                                    mptl_const_md packed) {
  bool unpack = which == MPTL_BACKWARD_WEIGHTS;
  if (unpack && dnnl_memory_desc_equal(plain, packed))
    return dnnl_success; /* the result has that layout already */
  dnnl_primitive_desc_t pd = NULL;
  dnnl_status_t status = dnnl_reorder_primitive_desc_create(
      &pd, unpack ? packed : plain, engine, unpack ? plain : packed, engine, attributes);
  if (status != dnnl_success) return status;
  mptl_const_md scratchpad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
  size_t bytes = dnnl_memory_desc_get_size(scratchpad);
  if (bytes > pass->scratchpad_bytes) pass->scratchpad_bytes = bytes;
  status = create_memory(&pass->reorder_scratch, scratchpad);
  if (status == dnnl_success) status = create_memory(&pass->plain, plain);
  if (status == dnnl_success) status = dnnl_primitive_create(&pass->reorder, pd);
  dnnl_primitive_desc_destroy(pd);
  return status;
}

static dnnl_status_t create_pass(struct pass *pass, const mptl_dnn_problem *p, mptl_pass which,
                                 mptl_compute compute, bool training) {
  dnnl_primitive_desc_t pd = NULL;
  dnnl_status_t status = describe_pass(&pd, p, which, compute, training);
  if (status != dnnl_success) return status;
  for (int role = 0; role < ROLES && status == dnnl_success; role++) {
    if (role == B && (!p->bias || which == MPTL_BACKWARD_DATA)) continue;
    mptl_const_md md =
        dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arguments[which][role]);
    status = create_memory(&pass->memory[role], md);
    if (role == W) pass->weights_bytes = dnnl_memory_desc_get_size(md);
    if (role == SCRATCH) pass->scratchpad_bytes = dnnl_memory_desc_get_size(md);
  }
  mptl_md plain = NULL;
  if (status == dnnl_success)
    status = mptl_md_create(&plain, p->weights_ndims, p->weights, dnnl_f32, p->weights_tag);
  if (status == dnnl_success)
    status = create_reorder(
        pass, which, plain,
        dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arguments[which][W]));
  if (status == dnnl_success) status = dnnl_primitive_create(&pass->primitive, pd);
  mptl_md_destroy(plain);
  dnnl_primitive_desc_destroy(pd);
  return status;
}

mptl_status mptl_dnn_create(mptl_dnn **op, int threads, const mptl_dnn_problem *problem,
                            const mptl_compute compute[MPTL_PASSES]) {
  *op = NULL;
  pthread_once(&once, start);
  if (engine_status != dnnl_success) return failed(engine_status, problem->name.text, "engine");
  mptl_dnn *o = calloc(1, sizeof *o);
  if (o == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory", problem->name.text);
  o->name = problem->name;
  o->bias = problem->bias;
  o->threads = threads;
  bool training = compute[MPTL_BACKWARD_DATA] != MPTL_COMPUTE_NONE ||
                  compute[MPTL_BACKWARD_WEIGHTS] != MPTL_COMPUTE_NONE;
  for (int i = 0; i < MPTL_PASSES; i++) {
    if (compute[i] == MPTL_COMPUTE_NONE) continue;
    int before = use_threads(threads);
    dnnl_status_t status = create_pass(&o->pass[i], problem, (mptl_pass)i, compute[i], training);
    use_threads(before);
    if (status == dnnl_success) continue;
    mptl_dnn_destroy(o);
    return failed(status, problem->name.text, mptl_pass_name((mptl_pass)i));
  }
  *op = o;
  return MPTL_OK;
}

void mptl_dnn_destroy(mptl_dnn *op) {
  if (op == NULL) return;
  for (int i = 0; i < MPTL_PASSES; i++) {
    struct pass *p = &op->pass[i];
    for (int role = 0; role < ROLES; role++)
      if (p->memory[role] != NULL) dnnl_memory_destroy(p->memory[role]);
    if (p->plain != NULL) dnnl_memory_destroy(p->plain);
    if (p->reorder_scratch != NULL) dnnl_memory_destroy(p->reorder_scratch);
    if (p->reorder != NULL) dnnl_primitive_destroy(p->reorder);
    if (p->primitive != NULL) dnnl_primitive_destroy(p->primitive);
  }
  free(op);
}

size_t mptl_dnn_packed_bytes(const mptl_dnn *op, mptl_pass pass) {
  return pass == MPTL_BACKWARD_WEIGHTS ? 0 : op->pass[pass].weights_bytes;
}

/* Where the scratchpad of a pass begins in the scratch memory: behind the gradient of the weights
 * in oneDNN's layout, if there is one. */
static size_t scratchpad_offset(const mptl_dnn *op, mptl_pass pass) {
  const struct pass *p = &op->pass[pass];
  return pass == MPTL_BACKWARD_WEIGHTS && p->reorder != NULL ? mptl_aligned(p->weights_bytes) : 0;
}

size_t mptl_dnn_scratch_bytes(const mptl_dnn *op) {
  size_t most = 0;
  for (int i = 0; i < MPTL_PASSES; i++) {
    size_t bytes = scratchpad_offset(op, (mptl_pass)i) + op->pass[i].scratchpad_bytes;
    if (bytes > most) most = bytes;
  }
  return most;
}

void mptl_dnn_use_scratch(mptl_dnn *op, void *scratch) { op->scratch = scratch; }

const char *mptl_dnn_describe(const mptl_dnn *op) { return op->name.text; }

const char *mptl_dnn_implementation(const mptl_dnn *op, mptl_pass pass) {
  const_dnnl_primitive_desc_t pd;
  if (op->pass[pass].primitive == NULL ||
      dnnl_primitive_get_primitive_desc(op->pass[pass].primitive, &pd) != dnnl_success)
    return "";
  return mptl_dnnl_implementation(pd);
}

bool mptl_dnn_supports(mptl_compute compute) {
  const int bf16 = dnnl_cpu_isa_avx512_core_bf16; /* AMX contains it */
  return compute == MPTL_COMPUTE_F32 ||
         (compute == MPTL_COMPUTE_BF16 && ((int)dnnl_get_effective_cpu_isa() & bf16) == bf16);
}

bool mptl_dnn_has_amx(void) {
  const int amx = dnnl_cpu_isa_avx512_core_amx;
  return ((int)dnnl_get_effective_cpu_isa() & amx) == amx;
}

const char *mptl_dnn_version(void) {
  pthread_once(&once, start);
  return version;
}

/* MPTL_EINVAL unless the pass was created and has its scratch memory. */
static mptl_status check(const mptl_dnn *op, mptl_pass pass) {
  if (op->pass[pass].primitive == NULL)
    return mptl_fail(MPTL_EINVAL, "%s: created without the %s pass", op->name.text,
                     mptl_pass_name(pass));
  if (op->scratch == NULL && mptl_dnn_scratch_bytes(op) > 0)
    return mptl_fail(MPTL_EINVAL, "%s: no scratch given, %zu bytes are needed", op->name.text,
                     mptl_dnn_scratch_bytes(op));
  return MPTL_OK;
}

static mptl_status check_bias(const mptl_dnn *op, const float *bias) {
  if ((bias != NULL) == op->bias) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "%s: created %s bias, called %s", op->name.text,
                   op->bias ? "with" : "without", op->bias ? "without" : "with one");
}

/* Runs a primitive on count memory objects with the given addresses; NULL objects are left out. */
static dnnl_status_t execute(const mptl_dnn *op, dnnl_primitive_t primitive, int count,
                             const int *ids, const dnnl_memory_t *memory, const void *const *at) {
  dnnl_exec_arg_t args[ROLES];
  int n = 0;
  for (int i = 0; i < count; i++) {
    if (memory[i] == NULL) continue;
    dnnl_status_t status = dnnl_memory_set_data_handle(memory[i], (void *)at[i]);
    if (status != dnnl_success) return status;
    args[n++] = (dnnl_exec_arg_t){ids[i], memory[i]};
  }
  int before = use_threads(op->threads);
  dnnl_status_t status = dnnl_primitive_execute(primitive, stream, n, args);
  if (status == dnnl_success) status = dnnl_stream_wait(stream);
  use_threads(before);
  return status;
}

static dnnl_status_t reorder(const mptl_dnn *op, mptl_pass pass, const void *to, const void *from) {
  const struct pass *p = &op->pass[pass];
  bool unpack = pass == MPTL_BACKWARD_WEIGHTS;
  const int ids[] = {DNNL_ARG_FROM, DNNL_ARG_TO, DNNL_ARG_SCRATCHPAD};
  const dnnl_memory_t memory[] = {unpack ? p->memory[W] : p->plain,
                                  unpack ? p->plain : p->memory[W], p->reorder_scratch};
  const void *const at[] = {from, to,
                            op->scratch == NULL ? NULL : op->scratch + scratchpad_offset(op, pass)};
  return execute(op, p->reorder, 3, ids, memory, at);
}

static mptl_status run(const mptl_dnn *op, mptl_pass pass, const void *x, const void *weights,
                       const void *bias, const void *y) {
  const void *const at[] = {x, weights, bias, y,
                            op->scratch == NULL ? NULL : op->scratch + scratchpad_offset(op, pass)};
  dnnl_status_t status =
      execute(op, op->pass[pass].primitive, ROLES, arguments[pass], op->pass[pass].memory, at);
  return status == dnnl_success ? MPTL_OK : failed(status, op->name.text, mptl_pass_name(pass));
}

mptl_status mptl_dnn_pack(mptl_dnn *op, mptl_pass pass, void *packed, const float *weights) {
  if (pass == MPTL_BACKWARD_WEIGHTS)
    return mptl_fail(MPTL_EINVAL, "%s: the backward weights pass reads no weights", op->name.text);
  MPTL_TRY(check(op, pass));
  dnnl_status_t status = reorder(op, pass, packed, weights);
  return status == dnnl_success ? MPTL_OK : failed(status, op->name.text, "packing the weights");
}

mptl_status mptl_dnn_forward(mptl_dnn *op, float *dst, const void *src, const void *packed,
                             const float *bias) {
  MPTL_TRY(check(op, MPTL_FORWARD));
  MPTL_TRY(check_bias(op, bias));
  return run(op, MPTL_FORWARD, src, packed, bias, dst);
}

mptl_status mptl_dnn_backward_data(mptl_dnn *op, float *diff_src, const void *diff_dst,
                                   const void *packed) {
  MPTL_TRY(check(op, MPTL_BACKWARD_DATA));
  return run(op, MPTL_BACKWARD_DATA, diff_src, packed, NULL, diff_dst);
}

mptl_status mptl_dnn_backward_weights(mptl_dnn *op, float *diff_weights, float *diff_bias,
                                      const void *src, const void *diff_dst) {
  MPTL_TRY(check(op, MPTL_BACKWARD_WEIGHTS));
  MPTL_TRY(check_bias(op, diff_bias));
  if (op->pass[MPTL_BACKWARD_WEIGHTS].reorder == NULL)
    return run(op, MPTL_BACKWARD_WEIGHTS, src, diff_weights, diff_bias, diff_dst);
  MPTL_TRY(run(op, MPTL_BACKWARD_WEIGHTS, src, op->scratch, diff_bias, diff_dst));
  dnnl_status_t status = reorder(op, MPTL_BACKWARD_WEIGHTS, diff_weights, op->scratch);
  return status == dnnl_success
             ? MPTL_OK
             : failed(status, op->name.text, "unpacking the gradient of the weights");
}

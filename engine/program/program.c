/* The public functions of programs, except running them (step.c): see mptl/program.h. */
#include <stdlib.h>
#include <string.h>

#include "backend/shapes.h"
#include "program/inside.h"
#include "program/model.h"

mptl_status mptl_program_create(mptl_program **program, mptl_model *model,
                                const mptl_assignment *assignment,
                                const mptl_program_options *options) {
  if (options->batch < 1)
    return mptl_fail(MPTL_EINVAL, "batch: %d, must be at least 1", options->batch);
  if (options->device != NULL && options->device != model->device)
    return mptl_fail(
        MPTL_EINVAL, "program: the model is on %s, not on %s%s", model->device->name,
        strcmp(model->device->name, options->device->name) == 0 ? "this opening of " : "",
        options->device->name);
  if (assignment->graph != model->graph)
    return mptl_fail(MPTL_EINVAL, "program: the model and the assignment are of different graphs");
  mptl_program *p = calloc(1, sizeof *p);
  if (p == NULL) return mptl_fail(MPTL_ENOMEM, "program: no memory");
  p->graph = model->graph;
  p->model = model;
  p->assignment = assignment;
  p->options = *options;
  p->workspace = options->workspace;
  p->device = mptl_device_retain(model->device);
  mptl_status status = mptl_program_compile(p);
  if (status == MPTL_OK && p->workspace != NULL && p->workspace->device != model->device)
    status = mptl_fail(
        MPTL_EINVAL, "program: the model is on %s, its workspace on %s%s", model->device->name,
        strcmp(model->device->name, p->workspace->device->name) == 0 ? "another opening of " : "",
        p->workspace->device->name);
  if (status == MPTL_OK && options->train) status = mptl_model_prepare_training(model);
  if (status == MPTL_OK && p->workspace == NULL) {
    status = mptl_workspace_create(&p->workspace, model->device);
    p->owns_workspace = true;
  }
  if (status == MPTL_OK) status = mptl_program_acquire(p);
  if (status != MPTL_OK) {
    mptl_program_destroy(p);
    return status;
  }
  *program = p;
  return MPTL_OK;
}

void mptl_program_destroy(mptl_program *p) {
  if (p == NULL) return;
  mptl_program_release(p);
  p->backend->free(p->device, p->saved);
  p->backend->free(p->device, p->record.facts);
  p->backend->free(p->device, p->exponents);
  p->backend->host_free(p->device, p->fetched.facts);
  free(p->fetched_exponents);
  if (p->workspace != NULL && p->workspace->user == p) p->workspace->user = NULL;
  if (p->owns_workspace) mptl_workspace_destroy(p->workspace);
  mptl_device_close(p->device);
  free(p);
}

/* Compiles a program only to read its predictions: without a model, and without memory for
 * values. */
static mptl_status begin_prediction(mptl_program *p, const mptl_assignment *assignment,
                                    const mptl_program_options *options) {
  *p = (mptl_program){.graph = assignment->graph, .assignment = assignment, .options = *options};
  if (options->device == NULL) MPTL_TRY(mptl_device_open(&p->device, "cpu", 0));
  if (options->device != NULL) p->device = mptl_device_retain(options->device);
  return mptl_program_compile(p);
}

static void end_prediction(mptl_program *p) {
  if (p->backend != NULL) mptl_program_release(p);
  mptl_device_close(p->device);
}

mptl_status mptl_predict_memory(mptl_memory_plan *memory, const mptl_assignment *assignment,
                                const mptl_program_options *options) {
  mptl_program p;
  mptl_status status = begin_prediction(&p, assignment, options);
  *memory = p.memory;
  end_prediction(&p);
  return status;
}

mptl_status mptl_program_check_owner(const mptl_program *p, const char *what) {
  if (p->workspace->user == p) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL,
                   "%s: another program has used the shared workspace since this one's forward",
                   what);
}

const mptl_op_cost *mptl_program_costs(const mptl_program *p) { return p->costs; }
double mptl_program_update_seconds(const mptl_program *p) { return p->update_seconds; }
const mptl_op_stats *mptl_program_stats(const mptl_program *p) {
  return (const mptl_op_stats *)p->fetched.stats;
}

/* The rounder of a tensor's i-th rounding, from 0; NULL beyond the last. An output has one
 * rounding, theta and dtheta have one for each parameter, and a dv has one for each operator that
 * sends a gradient. */
static const mptl_rounder *rounder_of(const mptl_program *p, int op, mptl_role role, int i) {
  const mptl_op *o = &p->graph->ops[op];
  if (role == MPTL_V || (role == MPTL_DV && op == p->loss))
    return i == 0 ? &p->rounders[op][role] : NULL;
  for (int k = 0; role != MPTL_DV && k < o->n_param; k++) {
    const mptl_param_rounding *r = &p->params[o->first_param + k];
    if (!p->graph->params[o->first_param + k].buffer && i-- == 0)
      return role == MPTL_THETA ? r->theta : r->dtheta;
  }
  int r = role == MPTL_DV ? o->first_reader : -1;
  for (; r >= 0; r = mptl_next_reader(p->graph, r)) {
    const mptl_node *node = &p->nodes[mptl_reader_op(r)];
    const mptl_destination *dx = &node->on.dx[mptl_reader_input(r)];
    if (node->life.live && dx->wanted && i-- == 0) return dx->rounder;
  }
  return NULL;
}

int mptl_program_shifts(const mptl_program *p, int op, mptl_role role, int *shifts, int most) {
  const mptl_rounder *r;
  int n = 0;
  for (; (r = rounder_of(p, op, role, n)) != NULL && r->format.auto_bias; n++)
    if (n < most) shifts[n] = r->format.b;
  return n;
}

const mptl_op_exponents *mptl_program_exponents(const mptl_program *p) {
  return p->has_exponents ? (const mptl_op_exponents *)p->fetched_exponents : NULL;
}

mptl_status mptl_program_count_exponents(mptl_program *p, bool on) {
  size_t bytes = (size_t)p->graph->n_ops * sizeof *p->exponents;
  if (on && p->exponents == NULL) p->exponents = p->backend->alloc(p->device, bytes);
  if (on && p->fetched_exponents == NULL) p->fetched_exponents = malloc(bytes);
  if (on && (p->exponents == NULL || p->fetched_exponents == NULL))
    return mptl_fail(MPTL_ENOMEM, "exponents: no memory for %zu bytes", bytes);
  p->want_exponents = on;
  return MPTL_OK;
}

void mptl_program_time_stages(mptl_program *p, bool on) { p->time_stages = on; }

mptl_memory_plan mptl_program_memory(const mptl_program *p) { return p->memory; }
int mptl_program_stage_of(const mptl_program *p, int op) { return p->nodes[op].life.stage; }

const char *mptl_compute_setting_name(size_t index) {
  static const char *const names[] = {
      [MPTL_COMPUTE_AUTO] = "auto",     [MPTL_COMPUTE_BINARY32] = "f32",
      [MPTL_COMPUTE_NARROW] = "narrow", [MPTL_COMPUTE_FP8] = "fp8",
      [MPTL_COMPUTE_TF32] = "tf32",     [MPTL_COMPUTE_ONEDNN] = "onednn"};
  return index < sizeof names / sizeof *names ? names[index] : NULL;
}

const char *mptl_compute_name(mptl_device *device, mptl_format a, mptl_format b, int channel_groups,
                              size_t parameters, mptl_compute_setting setting) {
  return device->backend->compute(device, a, b, channel_groups, parameters, setting);
}

int mptl_program_products(mptl_product_way *ways, const mptl_program *p) {
  int n = 0;
  for (int op = 0; op < p->graph->n_ops && p->backend->product != NULL; op++)
    for (int pass = 0; pass < MPTL_PASSES; pass++) {
      if (!p->backend->product(p->device, &ways[n],
                               &(mptl_member){&p->nodes[op].is, &p->nodes[op].on}, pass))
        continue;
      ways[n].op = op;
      ways[n++].pass = pass;
    }
  return n;
}

mptl_status mptl_predict_products(mptl_product_way *ways, int *count,
                                  const mptl_assignment *assignment,
                                  const mptl_program_options *options) {
  mptl_program p;
  mptl_status status = begin_prediction(&p, assignment, options);
  *count = status == MPTL_OK ? mptl_program_products(ways, &p) : 0;
  end_prediction(&p);
  return status;
}

mptl_status mptl_program_read(mptl_program *p, int op, bool gradient, float *out) {
  if (op < 0 || op >= p->graph->n_ops)
    return mptl_fail(MPTL_EINVAL, "operator %d: the graph has operators 0 to %d", op,
                     p->graph->n_ops - 1);
  const mptl_node *node = &p->nodes[op];
  bool kept = p->options.keep_all || (gradient && op == 0) ||
              (!gradient && mptl_graph_is_output(p->graph, op));
  if (gradient && !node->life.wants_gradient)
    return mptl_fail(MPTL_EINVAL, "%s: the program does not compute this gradient",
                     p->graph->ops[op].name);
  if (!kept)
    return mptl_fail(MPTL_EINVAL,
                     "%s: its memory is shared with others, compile the program with keep_all",
                     p->graph->ops[op].name);
  MPTL_TRY(mptl_program_check_owner(p, p->graph->ops[op].name));
  const void *data = gradient ? mptl_gradient_data(p, op) : mptl_value_data(p, op);
  size_t n = mptl_value_numel(p, op), size = gradient ? node->on.dy.size : node->on.out.size;
  if (size == sizeof(float)) return p->backend->download(p->device, out, data, n * size);
  void *codes = malloc(n * size);
  if (codes == NULL)
    return mptl_fail(MPTL_ENOMEM, "%s: no memory for %zu bytes", p->graph->ops[op].name, n * size);
  mptl_status status = p->backend->download(p->device, codes, data, n * size);
  if (status == MPTL_OK)
    mptl_decode_f32(out, codes, n, &p->rounders[op][gradient ? MPTL_DV : MPTL_V]);
  free(codes);
  return status;
}

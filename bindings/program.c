/* mptl.Program: trains and tests a model. mptl.Workspace: memory that programs share.
 *
 *   p = core.program(m, assignment, {batch=, train=true, rounding="nearest_even", seed=0,
 *     input_gradient=false, keep_all=false, compute="auto" | "f32" | "narrow" | "fp8" | "tf32" |
 *     "onednn", storage="packed" | "emulated", targets="labels" | "values",
 * workspace=core.workspace(device)}) see mptl_program_options p:forward(batch..., step) -> {loss=
 * sum over samples, correct= or nil: not counted, count=} p:backward(loss_scale) -> finite
 *   p:step(batch..., {step=, and the fields of m:update}) -> {loss=, correct=, count=, applied=}
 *     batch... is a loader (its current batch), or a Tensor of images in NHWC and the targets: a
 * table of labels from 0 or, with targets="values", a Tensor with as many numbers for each sample
 * as the loss's input has p:stats() -> { {operator=, role=, elements=, underflow=, overflow=,
 * inf_in=, nan_in=, max_abs=, shifts=}, ... }   statistics of the last step; shifts in
 * FP(e,m,auto): mptl_program_shifts p:count_exponents(on)   count exponents before rounding, from
 * the next forward on p:exponents() -> { {operator=, role=, first=, counts={...}, zeros=, inf=,
 * nan=, max_abs=}, ... } exponent counts of the last step: counts[i] values have floor(log2 |x|) =
 * first + i - 1. counts is empty, or begins and ends with a number that is not 0; nil if the step
 * did not count p:costs() -> { {operator=, stage=, forward=, backward=, forward_bytes=,
 * backward_bytes=}, ..., update= }   seconds of the last step, and bytes to move at least; the
 * costs of a stage are at its last operator p:products() -> { {operator=, pass="forward" |
 * "backward data" | "backward weights", type=, engine=, workspace_bytes=}, ... }   how the device's
 * library computes products; empty on the CPU p:time_stages(on)   wait for each stage, from the
 * next forward on: GPUs need it for the costs p:promote(threshold) -> { {operator=, role=}, ... }
 * promotions by the last step's statistics p:read(operator [, "gradient"]) -> Tensor (batch,
 * height, width, channels) or (batch, features) p:memory() -> {images=, parameters=, state=,
 * record=, arena=, saved=, scratch=, total=}   bytes core.predict_memory(assignment, {options of a
 * program, device=, optimizer=}) -> as p:memory() core.predict_products(assignment, {options of a
 * program, device=, optimizer=}) -> as p:products() core.storages() -> {name, ...} accepted for
 * storage
 */
#include <stdlib.h>
#include <string.h>

#include "backend/shapes.h"
#include "bindings/bind.h"
#include "mptl/program.h"

#define PROGRAM "mptl.Program"
#define WORKSPACE "mptl.Workspace"

/* ---- Workspace ---- */

static int workspace_new(lua_State *L) {
  mptl_device *device = bind_opt_device(L, 1);
  mptl_workspace **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, WORKSPACE);
  bind_check(L, mptl_workspace_create(box, device));
  return 1;
}

static int workspace_gc(lua_State *L) {
  mptl_workspace **box = luaL_checkudata(L, 1, WORKSPACE);
  mptl_workspace_destroy(*box);
  *box = NULL;
  return 0;
}

/* ---- Program ---- */

typedef struct program_box {
  mptl_program *program;
  mptl_model *model;
  mptl_assignment *assignment;
  int batch;
} program_box;

static program_box *check_program(lua_State *L) { return luaL_checkudata(L, 1, PROGRAM); }

static const char *storage_name(size_t index) {
  static const char *const names[] = {[MPTL_PACKED] = "packed", [MPTL_EMULATED] = "emulated"};
  return index < sizeof names / sizeof *names ? names[index] : NULL;
}

static const char *target_name(size_t index) {
  static const char *const names[] = {[MPTL_LABELS] = "labels", [MPTL_VALUES] = "values"};
  return index < sizeof names / sizeof *names ? names[index] : NULL;
}

/* Reads the options of a program from the table at index, which may be nil; not the workspace. */
static mptl_program_options read_options(lua_State *L, int index,
                                         const mptl_assignment *assignment) {
  static const char *const fields[] = {
      "batch",   "train",   "rounding",  "seed",   "input_gradient", "keep_all", "compute",
      "storage", "targets", "workspace", "device", "optimizer",      NULL};
  bind_check_fields(L, index, fields);
  mptl_program_options options = {
      .batch = (int)bind_opt_integer(L, index, "batch", assignment->batch),
      .train = bind_opt_boolean(L, index, "train", 1),
      .input_gradient = bind_opt_boolean(L, index, "input_gradient", 0),
      .keep_all = bind_opt_boolean(L, index, "keep_all", 0),
      .seed = (uint64_t)bind_opt_integer(L, index, "seed", 0)};
  if (bind_opt_string(L, index, "device", NULL) != NULL)
    options.device = bind_device_field(L, index);
  if (bind_opt_string(L, index, "optimizer", NULL) != NULL)
    options.optimizer = bind_optimizer_field(L, index);
  options.compute = bind_check_compute(L, bind_opt_string(L, index, "compute", "auto"));
  options.storage = (mptl_value_storage)bind_check_name(
      L, "storage", bind_opt_string(L, index, "storage", "packed"), storage_name);
  options.targets = (mptl_target_type)bind_check_name(
      L, "targets", bind_opt_string(L, index, "targets", "labels"), target_name);
  bind_check(L, mptl_rounding_mode_parse(&options.rounding,
                                         bind_opt_string(L, index, "rounding", "nearest_even")));
  return options;
}

static int program_new(lua_State *L) {
  mptl_model *model = bind_check_model(L, 1);
  mptl_assignment *assignment = bind_check_assignment(L, 2);
  mptl_program_options options = read_options(L, 3, assignment);
  lua_settop(L, 3);
  if (!lua_isnil(L, 3) && lua_getfield(L, 3, "workspace") != LUA_TNIL)
    options.workspace = *(mptl_workspace **)luaL_checkudata(L, -1, WORKSPACE);
  lua_settop(L, 3);
  program_box *box = lua_newuserdatauv(L, sizeof *box, 3);
  *box = (program_box){.model = model, .assignment = assignment, .batch = options.batch};
  luaL_setmetatable(L, PROGRAM);
  bind_check(L, mptl_program_create(&box->program, model, assignment, &options));
  lua_pushvalue(L, 1); /* the program borrows model and assignment */
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, 2);
  lua_setiuservalue(L, -2, 2);
  if (options.workspace != NULL) {
    lua_getfield(L, 3, "workspace");
    lua_setiuservalue(L, -2, 3);
  }
  return 1;
}

static int program_gc(lua_State *L) {
  program_box *box = check_program(L);
  mptl_program_destroy(box->program);
  box->program = NULL;
  return 0;
}

/* A batch of n samples, as arguments give it. */
typedef struct given_batch {
  const float *images;
  mptl_targets targets;
  int n;
} given_batch;

/* Copies the labels of the table at index 3 into a buffer on the Lua stack. */
static const int32_t *read_labels(lua_State *L, int n) {
  int32_t *labels = lua_newuserdatauv(L, (size_t)n * sizeof *labels, 0);
  for (int i = 0; i < n; i++) {
    lua_geti(L, 3, i + 1);
    labels[i] = (int32_t)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  return labels;
}

/* Reads targets at index 3: a tensor of values, whose first dimension is the samples, or a table of
 * labels. Returns the number of samples. */
static lua_Integer read_targets(lua_State *L, const mptl_graph *g, mptl_targets *targets) {
  if (!luaL_testudata(L, 3, "mptl.Tensor")) {
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_Integer n = luaL_len(L, 3);
    if (n < 1 || n > 1 << 24) luaL_error(L, "labels: %I, accepted are 1 to 16777216", n);
    targets->labels = read_labels(L, (int)n);
    return n;
  }
  const mptl_tensor *values = bind_check_tensor(L, 3);
  size_t each = g->loss < 0 ? 0 : mptl_shape_numel(mptl_input_shape(g, &g->ops[g->loss], 0)),
         numel = mptl_tensor_numel(values);
  if (each == 0 || numel == 0 || numel % each != 0)
    luaL_error(L, "targets: %I values, the loss takes %I for each sample", (lua_Integer)numel,
               (lua_Integer)each);
  targets->values = values->data;
  return (lua_Integer)(numel / each);
}

/* Reads the batch at index 2: a loader, or images and targets. Returns the index of the next
 * argument. */
static int read_batch(lua_State *L, const program_box *box, given_batch *b) {
  const mptl_graph *g = box->model->graph;
  size_t image = mptl_shape_numel(g->values[g->ops[0].out].shape);
  lua_settop(L, 4); /* the arguments; buffers come above them */
  if (!luaL_testudata(L, 2, "mptl.Tensor")) {
    const mptl_batch *loaded = bind_check_batch(L, 2);
    *b = (given_batch){
        .images = loaded->images, .targets = {.labels = loaded->labels}, .n = loaded->n};
    if (image != loaded->image_size)
      luaL_error(L, "loader: images of %I values, the network takes %I",
                 (lua_Integer)loaded->image_size, (lua_Integer)image);
    return 3;
  }
  mptl_tensor *images = bind_check_tensor(L, 2);
  *b = (given_batch){.images = images->data};
  lua_Integer n = read_targets(L, g, &b->targets);
  if ((size_t)n * image != mptl_tensor_numel(images))
    luaL_error(L, "images: %I values for %I %s, the network takes %I for each sample",
               (lua_Integer)mptl_tensor_numel(images), n,
               b->targets.labels != NULL ? "labels" : "samples' targets", (lua_Integer)image);
  b->n = (int)n;
  return 4;
}

static void push_result(lua_State *L, const mptl_result *result) {
  lua_createtable(L, 0, 4);
  bind_set_number(L, "loss", result->loss);
  if (result->correct >= 0) bind_set_integer(L, "correct", result->correct);
  bind_set_integer(L, "count", result->count);
}

static int program_forward(lua_State *L) {
  program_box *box = check_program(L);
  given_batch batch;
  mptl_result result;
  int next = read_batch(L, box, &batch);
  uint32_t step = (uint32_t)luaL_optinteger(L, next, 0);
  bind_check(
      L, mptl_program_forward(box->program, batch.images, &batch.targets, batch.n, step, &result));
  push_result(L, &result);
  return 1;
}

static int program_backward(lua_State *L) {
  bool finite;
  bind_check(L, mptl_program_backward(check_program(L)->program, luaL_optnumber(L, 2, 1), &finite));
  lua_pushboolean(L, finite);
  return 1;
}

static int program_step(lua_State *L) {
  program_box *box = check_program(L);
  given_batch batch;
  mptl_result result;
  int next = read_batch(L, box, &batch);
  mptl_update update = bind_read_update(L, next, box->model->optimizer);
  uint32_t step = (uint32_t)bind_opt_integer(L, next, "step", 0);
  bind_check(L, mptl_program_step(box->program, batch.images, &batch.targets, batch.n, step,
                                  &update, &result));
  push_result(L, &result);
  bind_set_boolean(L, "applied", result.applied);
  return 1;
}

/* Sets the field shifts, if the tensor's format is FP(e,m,auto). */
static void set_shifts(lua_State *L, const mptl_program *program, int op, mptl_role role) {
  int n = mptl_program_shifts(program, op, role, NULL, 0);
  if (n == 0) return;
  int *shifts = lua_newuserdatauv(L, (size_t)n * sizeof *shifts, 0);
  mptl_program_shifts(program, op, role, shifts, n);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushinteger(L, shifts[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -3, "shifts");
  lua_pop(L, 1);
}

static int program_stats(lua_State *L) {
  program_box *box = check_program(L);
  const mptl_op_stats *stats = mptl_program_stats(box->program);
  lua_newtable(L);
  lua_Integer n = 0;
  for (int i = 0; i < box->assignment->n_ops; i++) {
    for (int role = 0; role < MPTL_ROLES; role++) {
      const mptl_round_stats *s = &stats[i][role];
      if (s->elements == 0) continue;
      lua_createtable(L, 0, 8);
      bind_set_integer(L, "operator", i);
      bind_set_string(L, "role", mptl_role_name((size_t)role));
      bind_set_integer(L, "elements", (lua_Integer)s->elements);
      bind_set_integer(L, "underflow", (lua_Integer)s->underflow);
      bind_set_integer(L, "overflow", (lua_Integer)s->overflow);
      bind_set_integer(L, "inf_in", (lua_Integer)s->inf_in);
      bind_set_integer(L, "nan_in", (lua_Integer)s->nan_in);
      bind_set_number(L, "max_abs", (lua_Number)s->max_abs);
      set_shifts(L, box->program, i, (mptl_role)role);
      lua_rawseti(L, -2, ++n);
    }
  }
  return 1;
}

static int program_count_exponents(lua_State *L) {
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  bind_check(L, mptl_program_count_exponents(check_program(L)->program, lua_toboolean(L, 2)));
  return 0;
}

/* Sets the fields first and counts, from the first exponent that occurs to the last. */
static void set_counts(lua_State *L, const mptl_exponents *e) {
  int first = 0, end = MPTL_EXPONENT_COUNTS;
  while (first < end && e->counts[first] == 0) first++;
  while (end > first && e->counts[end - 1] == 0) end--;
  bind_set_integer(L, "first", first < end ? first + MPTL_EXPONENT_FIRST : 0);
  lua_createtable(L, end - first, 0);
  for (int i = first; i < end; i++) {
    lua_pushinteger(L, (lua_Integer)e->counts[i]);
    lua_rawseti(L, -2, i - first + 1);
  }
  lua_setfield(L, -2, "counts");
}

static int program_exponents(lua_State *L) {
  program_box *box = check_program(L);
  const mptl_op_exponents *exponents = mptl_program_exponents(box->program);
  const mptl_op_stats *stats = mptl_program_stats(box->program);
  if (exponents == NULL) return 0;
  lua_newtable(L);
  lua_Integer n = 0;
  for (int i = 0; i < box->assignment->n_ops; i++) {
    for (int role = 0; role < MPTL_ROLES; role++) {
      const mptl_exponents *e = &exponents[i][role];
      if (stats[i][role].elements == 0) continue;
      lua_createtable(L, 0, 8);
      bind_set_integer(L, "operator", i);
      bind_set_string(L, "role", mptl_role_name((size_t)role));
      set_counts(L, e);
      bind_set_integer(L, "zeros", (lua_Integer)e->zeros);
      bind_set_integer(L, "inf", (lua_Integer)e->inf);
      bind_set_integer(L, "nan", (lua_Integer)e->nan);
      bind_set_number(L, "max_abs", (lua_Number)e->max_abs);
      lua_rawseti(L, -2, ++n);
    }
  }
  return 1;
}

static int program_time_stages(lua_State *L) {
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  mptl_program_time_stages(check_program(L)->program, lua_toboolean(L, 2));
  return 0;
}

static int program_costs(lua_State *L) {
  program_box *box = check_program(L);
  const mptl_op_cost *costs = mptl_program_costs(box->program);
  lua_createtable(L, box->assignment->n_ops, 0);
  for (int i = 0; i < box->assignment->n_ops; i++) {
    lua_createtable(L, 0, 6);
    bind_set_integer(L, "operator", i);
    bind_set_integer(L, "stage", mptl_program_stage_of(box->program, i));
    bind_set_number(L, "forward", costs[i].forward);
    bind_set_number(L, "backward", costs[i].backward);
    bind_set_integer(L, "forward_bytes", (lua_Integer)costs[i].forward_bytes);
    bind_set_integer(L, "backward_bytes", (lua_Integer)costs[i].backward_bytes);
    lua_rawseti(L, -2, i + 1);
  }
  bind_set_number(L, "update", mptl_program_update_seconds(box->program));
  return 1;
}

/* Pushes memory for the ways of all products. */
static mptl_product_way *new_ways(lua_State *L, const mptl_assignment *assignment) {
  return lua_newuserdatauv(L, (size_t)assignment->n_ops * MPTL_PASSES * sizeof(mptl_product_way),
                           0);
}

static int push_ways(lua_State *L, const mptl_product_way *ways, int count) {
  lua_createtable(L, count, 0);
  for (int i = 0; i < count; i++) {
    lua_createtable(L, 0, 5);
    bind_set_integer(L, "operator", ways[i].op);
    bind_set_string(L, "pass", mptl_pass_name((mptl_pass)ways[i].pass));
    bind_set_string(L, "type", ways[i].type);
    bind_set_string(L, "engine", ways[i].engine);
    bind_set_integer(L, "workspace_bytes", (lua_Integer)ways[i].workspace_bytes);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int program_products(lua_State *L) {
  program_box *box = check_program(L);
  mptl_product_way *ways = new_ways(L, box->assignment);
  return push_ways(L, ways, mptl_program_products(ways, box->program));
}

typedef struct promotions {
  int n;
  struct {
    int op;
    mptl_role role;
  } list[];
} promotions;

static void note_promotion(void *context, int op, mptl_role role) {
  promotions *p = context;
  p->list[p->n].op = op;
  p->list[p->n++].role = role;
}

static int program_promote(lua_State *L) {
  program_box *box = check_program(L);
  double threshold = luaL_checknumber(L, 2);
  promotions *p =
      lua_newuserdatauv(L, sizeof *p + 2 * (size_t)box->assignment->n_ops * sizeof *p->list, 0);
  p->n = 0;
  bind_check(L, mptl_assignment_promote(box->assignment, mptl_program_stats(box->program),
                                        threshold, note_promotion, p));
  lua_createtable(L, p->n, 0);
  for (int i = 0; i < p->n; i++) {
    lua_createtable(L, 0, 2);
    bind_set_integer(L, "operator", p->list[i].op);
    bind_set_string(L, "role", mptl_role_name((size_t)p->list[i].role));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int program_read(lua_State *L) {
  static const char *const which[] = {"value", "gradient", NULL};
  program_box *box = check_program(L);
  lua_Integer op = luaL_checkinteger(L, 2);
  int gradient = luaL_checkoption(L, 3, "value", which);
  const mptl_graph *g = box->model->graph;
  if (op < 0 || op >= g->n_ops)
    luaL_error(L, "operator %I: the graph has operators 0 to %d", op, g->n_ops - 1);
  mptl_shape s = g->values[g->ops[op].out].shape;
  int64_t dims[4] = {box->batch, s.h, s.w, s.c};
  if (s.ndim == 1) dims[1] = s.c;
  mptl_tensor *out;
  bind_check(L, mptl_tensor_create(&out, s.ndim == 1 ? 2 : 4, dims));
  bind_push_tensor(L, out);
  bind_check(L, mptl_program_read(box->program, (int)op, gradient, out->data));
  return 1;
}

static int push_memory(lua_State *L, mptl_memory_plan m) {
  lua_createtable(L, 0, 6);
  bind_set_integer(L, "parameters", (lua_Integer)m.parameters);
  bind_set_integer(L, "images", (lua_Integer)m.images);
  bind_set_integer(L, "state", (lua_Integer)m.state);
  bind_set_integer(L, "record", (lua_Integer)m.record);
  bind_set_integer(L, "arena", (lua_Integer)m.arena);
  bind_set_integer(L, "saved", (lua_Integer)m.saved);
  bind_set_integer(L, "scratch", (lua_Integer)m.scratch);
  bind_set_integer(L, "total", (lua_Integer)m.total);
  return 1;
}

static int program_memory(lua_State *L) {
  return push_memory(L, mptl_program_memory(check_program(L)->program));
}

static int predict_memory(lua_State *L) {
  mptl_memory_plan m;
  mptl_assignment *assignment = bind_check_assignment(L, 1);
  mptl_program_options options = read_options(L, 2, assignment);
  bind_check(L, mptl_predict_memory(&m, assignment, &options));
  return push_memory(L, m);
}

static int predict_products(lua_State *L) {
  int count;
  mptl_assignment *assignment = bind_check_assignment(L, 1);
  mptl_program_options options = read_options(L, 2, assignment);
  mptl_product_way *ways = new_ways(L, assignment);
  bind_check(L, mptl_predict_products(ways, &count, assignment, &options));
  return push_ways(L, ways, count);
}

static int storages(lua_State *L) {
  bind_push_names(L, storage_name);
  return 1;
}

static const luaL_Reg program_methods[] = {
    {"forward", program_forward},
    {"backward", program_backward},
    {"step", program_step},
    {"stats", program_stats},
    {"costs", program_costs},
    {"products", program_products},
    {"time_stages", program_time_stages},
    {"promote", program_promote},
    {"read", program_read},
    {"memory", program_memory},
    {"count_exponents", program_count_exponents},
    {"exponents", program_exponents},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"program", program_new},
    {"workspace", workspace_new},
    {"predict_memory", predict_memory},
    {"predict_products", predict_products},
    {"storages", storages},
    {NULL, NULL},
};

void mptl_bind_program(lua_State *L) {
  bind_new_type(L, PROGRAM, program_methods, program_gc);
  bind_new_type(L, WORKSPACE, (const luaL_Reg[]){{NULL, NULL}}, workspace_gc);
  luaL_setfuncs(L, functions, 0);
}

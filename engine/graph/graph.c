/* Records graphs: arrays of operators, values and parameters that only grow. */
#include "mptl/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/ops.h"

mptl_status mptl_graph_create(mptl_graph **graph) {
  *graph = calloc(1, sizeof **graph);
  if (*graph == NULL) return mptl_fail(MPTL_ENOMEM, "graph: no memory");
  (*graph)->loss = -1;
  return MPTL_OK;
}

void mptl_graph_destroy(mptl_graph *graph) {
  if (graph == NULL) return;
  for (int i = 0; i < graph->n_ops; i++) free(graph->ops[i].name);
  for (int i = 0; i < graph->n_params; i++) free(graph->params[i].name);
  free(graph->ops);
  free(graph->values);
  free(graph->params);
  free(graph->names);
  free(graph);
}

/* Makes room for element n of *array. The capacity of an array is the next power of two. */
static mptl_status grow(void **array, int n, size_t size) {
  if (n > 0 && (n & (n - 1)) != 0) return MPTL_OK;
  void *p = realloc(*array, (n ? 2 * (size_t)n : 1) * size);
  if (p == NULL) return mptl_fail(MPTL_ENOMEM, "graph: no memory");
  *array = p;
  return MPTL_OK;
}

/* ---- Names ----
 *
 * A hash table finds operators by name. It has at least twice as many places as names; a name whose
 * place is taken gets the next free one. */

/* FNV-1a (Fowler, Noll, Vo). */
static size_t hash(const char *name, size_t length) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < length; i++) h = (h ^ (unsigned char)name[i]) * 0x100000001b3u;
  return (size_t)(h ^ h >> 32);
}

static bool is_named(const mptl_op *op, const char *name, size_t length) {
  return strncmp(op->name, name, length) == 0 && op->name[length] == '\0';
}

/* The place of a name in the table, which must have places: the operator of that name is there, or
 * none. */
static size_t place_of_name(const mptl_graph *g, const char *name, size_t length) {
  size_t at = hash(name, length) & (g->name_places - 1);
  while (g->names[at] >= 0 && !is_named(&g->ops[g->names[at]], name, length))
    at = (at + 1) & (g->name_places - 1);
  return at;
}

/* The index of the operator whose name is the first `length` characters of name; -1: there is
 * none. */
static int find_op(const mptl_graph *g, const char *name, size_t length) {
  return g->name_places > 0 ? g->names[place_of_name(g, name, length)] : -1;
}

static void note_name(mptl_graph *g, int op) {
  const char *name = g->ops[op].name;
  g->names[place_of_name(g, name, strlen(name))] = op;
}

/* Makes room for one more name. */
static mptl_status grow_names(mptl_graph *g) {
  if (2 * ((size_t)g->n_ops + 1) <= g->name_places) return MPTL_OK;
  size_t n = g->name_places > 0 ? 2 * g->name_places : 64;
  int *names = realloc(g->names, n * sizeof *names);
  if (names == NULL) return mptl_fail(MPTL_ENOMEM, "graph: no memory");
  for (size_t i = 0; i < n; i++) names[i] = -1;
  g->names = names;
  g->name_places = n;
  for (int i = 0; i < g->n_ops; i++) note_name(g, i);
  return MPTL_OK;
}

/* ---- Values and operators ---- */

static mptl_status add_value(mptl_graph *g, int *value, mptl_value v) {
  MPTL_TRY(grow((void **)&g->values, g->n_values, sizeof *g->values));
  *value = g->n_values++;
  if (v.base < 0) v.base = *value;
  g->values[*value] = v;
  return MPTL_OK;
}

static mptl_status check_value(const mptl_graph *g, int value) {
  if (value < 0 || value >= g->n_values)
    return mptl_fail(MPTL_EINVAL, "value %d: the graph has %d", value, g->n_values);
  return MPTL_OK;
}

/* Removes all parameters except the first `keep`. */
static void drop_params(mptl_graph *g, int keep) {
  while (g->n_params > keep) free(g->params[--g->n_params].name);
}

static bool same_layout(mptl_shape a, mptl_shape b) {
  return a.c == b.c && a.h == b.h && a.w == b.w;
}

/* Finds the layout of an operator's output. Fails if the operator keeps its inputs' layout, and
 * they differ. */
static mptl_status find_layout(const mptl_graph *g, const mptl_op *op, mptl_shape shape,
                               mptl_shape *layout) {
  *layout = shape;
  if (op->n_in == 0 || !(op->kind->pointwise || op->kind->keeps_layout)) return MPTL_OK;
  *layout = mptl_input_layout(g, op, 0);
  for (int k = 1; k < op->n_in; k++)
    if (!same_layout(mptl_input_layout(g, op, k), *layout))
      return mptl_fail(MPTL_EINVAL,
                       "input %d and input 0 are not flattened from one shape: their features are "
                       "in different orders",
                       k);
  return MPTL_OK;
}

/* Appends the inputs of operator i to the lists of readers of the operators that make them. */
static void note_readers(mptl_graph *g, int i) {
  for (int k = 0; k < g->ops[i].n_in; k++) {
    mptl_op *from = &g->ops[mptl_producer(g, &g->ops[i], k)];
    int reader = mptl_reader(i, k), last = from->last_reader;
    g->ops[i].next_reader[k] = -1;
    if (last < 0)
      from->first_reader = reader;
    else
      g->ops[mptl_reader_op(last)].next_reader[mptl_reader_input(last)] = reader;
    from->last_reader = reader;
  }
}

mptl_status mptl_graph_add(mptl_graph *g, int *value, const mptl_op_kind *kind, const char *name,
                           int n_in, const int *inputs, const mptl_attributes *attributes) {
  if (find_op(g, name, strlen(name)) >= 0)
    return mptl_fail(MPTL_EINVAL, "%s: the graph has an operator of that name already", name);
  bool several = kind->n_in == MPTL_SEVERAL;
  if (several ? n_in < 1 || n_in > MPTL_MAX_INPUTS : n_in != kind->n_in)
    return mptl_fail(MPTL_EINVAL, "%s (%s): %d inputs, takes %s%d", name, kind->name, n_in,
                     several ? "1 to " : "", several ? MPTL_MAX_INPUTS : kind->n_in);
  if (kind != &mptl_op_input && g->n_ops == 0)
    return mptl_fail(MPTL_EINVAL, "%s (%s): the graph has no input yet", name, kind->name);
  if (kind->loss && g->loss >= 0)
    return mptl_fail(MPTL_EINVAL, "%s (%s): a second loss, the first one is %s", name, kind->name,
                     g->ops[g->loss].name);
  for (int i = 0; i < n_in; i++) MPTL_TRY(check_value(g, inputs[i]));
  MPTL_TRY(grow((void **)&g->ops, g->n_ops, sizeof *g->ops));
  MPTL_TRY(grow_names(g));

  mptl_op op = {.kind = kind,
                .n_in = n_in,
                .attr = attributes ? *attributes : mptl_attributes_default(),
                .first_param = g->n_params,
                .first_reader = -1,
                .last_reader = -1};
  mptl_shape shape, layout;
  for (int i = 0; i < n_in; i++) op.in[i] = inputs[i];
  op.name = strdup(name);
  if (op.name == NULL) return mptl_fail(MPTL_ENOMEM, "graph: no memory");
  mptl_status status = kind->infer(g, &op, &shape);
  if (status == MPTL_OK) status = find_layout(g, &op, shape, &layout);
  if (status == MPTL_OK) status = add_value(g, &op.out, (mptl_value){g->n_ops, -1, shape, layout});
  if (status != MPTL_OK) {
    drop_params(g, op.first_param);
    mptl_fail_in(status, "%s (%s)", name, kind->name);
    free(op.name);
    return status;
  }
  op.n_param = g->n_params - op.first_param;
  if (kind->loss) g->loss = g->n_ops;
  g->ops[g->n_ops] = op;
  note_name(g, g->n_ops);
  note_readers(g, g->n_ops);
  g->n_ops++;
  *value = op.out;
  return MPTL_OK;
}

mptl_status mptl_graph_input(mptl_graph *g, int *value, mptl_shape shape) {
  if (g->n_ops > 0)
    return mptl_fail(MPTL_EINVAL, "input: must be the first operator, the graph has %d", g->n_ops);
  if (shape.c < 1 || shape.h < 1 || shape.w < 1 || (shape.ndim != 1 && shape.ndim != 3))
    return mptl_fail(MPTL_EINVAL, "input: shape %dx%dx%d, all sizes must be positive", shape.c,
                     shape.h, shape.w);
  MPTL_TRY(mptl_graph_add(g, value, &mptl_op_input, "input", 0, NULL, NULL));
  g->values[*value].shape = g->values[*value].layout = shape;
  return MPTL_OK;
}

mptl_status mptl_graph_flatten(mptl_graph *g, int *value, int of) {
  MPTL_TRY(check_value(g, of));
  mptl_value v = g->values[of];
  size_t features = mptl_shape_numel(v.shape);
  if (features > 1 << 24)
    return mptl_fail(MPTL_EINVAL, "flatten: %zu features, accepted are at most %d", features,
                     1 << 24);
  v.shape = (mptl_shape){.ndim = 1, .c = (int)features, .h = 1, .w = 1};
  return add_value(g, value, v);
}

mptl_status mptl_graph_mark_output(mptl_graph *g, int value) {
  MPTL_TRY(check_value(g, value));
  g->ops[g->values[g->values[value].base].op].marked = true;
  return MPTL_OK;
}

bool mptl_graph_is_output(const mptl_graph *g, int op) {
  if (op == g->loss) return true;
  for (int k = 0; g->loss >= 0 && k < g->ops[g->loss].n_in; k++)
    if (mptl_producer(g, &g->ops[g->loss], k) == op) return true;
  return g->ops[op].marked;
}

mptl_status mptl_graph_add_param(mptl_graph *g, mptl_op *op, const char *suffix, bool buffer,
                                 int ndim, const int64_t *dims, mptl_init init) {
  MPTL_TRY(grow((void **)&g->params, g->n_params, sizeof *g->params));
  mptl_param p = {.op = g->n_ops, .buffer = buffer, .ndim = ndim, .numel = 1, .init = init};
  for (int i = 0; i < ndim; i++) {
    p.dims[i] = dims[i];
    p.numel *= (size_t)dims[i];
  }
  if (asprintf(&p.name, "%s.%s", op->name, suffix) < 0)
    return mptl_fail(MPTL_ENOMEM, "graph: no memory");
  g->params[g->n_params++] = p;
  return MPTL_OK;
}

int mptl_graph_find_param(const mptl_graph *g, const char *name) {
  const char *dot = strrchr(name, '.'); /* between the operator's name and the suffix */
  int op = dot != NULL ? find_op(g, name, (size_t)(dot - name)) : -1;
  if (op < 0) return -1;
  for (int i = g->ops[op].first_param; i < g->ops[op].first_param + g->ops[op].n_param; i++)
    if (strcmp(g->params[i].name, name) == 0) return i;
  return -1;
}

mptl_status mptl_graph_set_init(mptl_graph *g, const char *param, mptl_init init) {
  int i = mptl_graph_find_param(g, param);
  if (i < 0) return mptl_fail(MPTL_EINVAL, "parameter %s: the graph has no such parameter", param);
  g->params[i].init = init;
  return MPTL_OK;
}

int mptl_graph_least_batch(const mptl_graph *g, int op) {
  mptl_shape shape = g->values[g->ops[op].out].shape;
  return g->ops[op].kind->normalises && shape.h == 1 && shape.w == 1 ? 2 : 1;
}

const char *mptl_shape_print(mptl_shape s, char *text) {
  if (s.ndim == 1)
    snprintf(text, 40, "%d", s.c);
  else
    snprintf(text, 40, "%dx%dx%d", s.c, s.h, s.w);
  return text;
}

mptl_status mptl_expect_ndim(const mptl_graph *g, const mptl_op *op, int i, int ndim) {
  mptl_shape s = mptl_input_shape(g, op, i);
  char text[40];
  if (s.ndim == ndim) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "input of shape %s, takes %s", mptl_shape_print(s, text),
                   ndim == 3 ? "CxHxW" : "a flat one (nn.Flatten)");
}

mptl_status mptl_expect_channels(const mptl_graph *g, const mptl_op *op, int i) {
  if (!same_layout(mptl_input_layout(g, op, i), mptl_input_shape(g, op, i)))
    return mptl_fail(MPTL_EINVAL, "input %d is a flattened image: flatten it later", i);
  return MPTL_OK;
}

mptl_status mptl_window_size(int *out, const mptl_op *op, int in, int axis) {
  const mptl_attributes *a = &op->attr;
  int extent = a->dilation[axis] * (a->kernel[axis] - 1) + 1, padded = in + 2 * a->padding[axis];
  if (extent > padded)
    return mptl_fail(MPTL_EINVAL, "a window of %d does not fit into %d (padded) elements", extent,
                     padded);
  *out = (padded - extent) / a->stride[axis] + 1;
  return MPTL_OK;
}

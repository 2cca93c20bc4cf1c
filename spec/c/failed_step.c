/* A step that fails half way, wherever that is, leaves nothing behind: backward is refused, and the
 * next step is a fresh program's, bit for bit. The device is the CPU whose n-th call fails, n = 1,
 * 2, ... */
#include <string.h>

#include "backend/backend.h"
#include "check.h"
#include "mptl/program.h"

enum { BATCH = 4, CHANNELS = 2, SIDE = 6, CLASSES = 3, MOST_CALLS = 1000 };

/* ---- The device ---- */

static const mptl_backend *cpu;
static int calls_left; /* until one fails; 0: none does */

static mptl_status next_call(void) {
  return calls_left > 0 && --calls_left == 0 ? mptl_fail(MPTL_EBACKEND, "no luck") : MPTL_OK;
}

static mptl_status run(mptl_device *d, const mptl_stage *stage, const mptl_step *number,
                       bool forward) {
  MPTL_TRY(next_call());
  return cpu->run(d, stage, number, forward);
}

static mptl_status find_ranges(mptl_device *d, const mptl_stage *stage, const mptl_step *number,
                               bool forward, int i, float *largest) {
  MPTL_TRY(next_call());
  return cpu->find_ranges(d, stage, number, forward, i, largest);
}

static mptl_status round_arrays(mptl_device *d, const mptl_rounding *arrays, size_t count) {
  MPTL_TRY(next_call());
  return cpu->round(d, arrays, count);
}

static mptl_status fill(mptl_device *d, const mptl_sink *sink, float value, size_t n) {
  MPTL_TRY(next_call());
  return cpu->fill(d, sink, value, n);
}

static mptl_status max_abs(mptl_device *d, float *largest, const float *x, size_t n) {
  MPTL_TRY(next_call());
  return cpu->max_abs(d, largest, x, n);
}

/* ---- Training on it ---- */

typedef struct training {
  mptl_graph *graph;
  mptl_assignment *assignment;
  mptl_model *model;
  mptl_program *program;
} training;

static int add(mptl_graph *g, const char *kind, int input, int out) {
  int value = -1;
  mptl_attributes a = mptl_attributes_default();
  a.out = out;
  return mptl_graph_add(g, &value, mptl_op_kind_find(kind), kind, 1, &input, &a) == MPTL_OK ? value
                                                                                            : -1;
}

static int begin(training *t, mptl_device *device) {
  static const char *const formats[MPTL_ROLES] = {"FP(4,3,4)", "FP(5,2,0)", "FP(4,3,auto)",
                                                  "FP(6,9,auto)"};
  int x;
  CHECK(mptl_graph_create(&t->graph) == MPTL_OK);
  CHECK(mptl_graph_input(t->graph, &x, (mptl_shape){3, CHANNELS, SIDE, SIDE}) == MPTL_OK);
  x = add(t->graph, "relu", add(t->graph, "batchnorm2d", add(t->graph, "conv2d", x, 4), 0), 0);
  CHECK(mptl_graph_flatten(t->graph, &x, x) == MPTL_OK);
  x = add(t->graph, "nll_loss",
          add(t->graph, "log_softmax", add(t->graph, "linear", x, CLASSES), 0), 0);
  CHECK(x >= 0);
  mptl_candidates c;
  for (int role = 0; role < MPTL_ROLES; role++) {
    CHECK(mptl_format_parse(&c.high[role], formats[role]) == MPTL_OK);
    c.low[role] = c.high[role];
  }
  CHECK(mptl_assignment_create(&t->assignment, t->graph, BATCH, &c) == MPTL_OK);
  CHECK(mptl_model_create(&t->model, t->graph,
                          &(mptl_model_options){.seed = 1, .device = device}) == MPTL_OK);
  mptl_program_options options = {.batch = BATCH, .train = true};
  CHECK(mptl_program_create(&t->program, t->model, t->assignment, &options) == MPTL_OK);
  return 0;
}

static void end(training *t) {
  mptl_program_destroy(t->program);
  mptl_model_destroy(t->model);
  mptl_assignment_destroy(t->assignment);
  mptl_graph_destroy(t->graph);
}

static mptl_status step(training *t, uint32_t number, mptl_result *result) {
  float images[BATCH * SIDE * SIDE * CHANNELS];
  int32_t labels[BATCH];
  for (int i = 0; i < BATCH * SIDE * SIDE * CHANNELS; i++)
    images[i] = (float)((i * 37 + (int)number) % 64) / 64 - 0.5f;
  for (int i = 0; i < BATCH; i++) labels[i] = i % CLASSES;
  mptl_update update = mptl_update_default(t->model->optimizer);
  return mptl_program_step(t->program, images, &(mptl_targets){.labels = labels}, BATCH, number,
                           &update, result);
}

/* Of running statistics, a failed step's forward has done its part already. */
static int same(const training *a, const training *b) {
  const mptl_graph *g = a->graph;
  CHECK(memcmp(mptl_program_stats(a->program), mptl_program_stats(b->program),
               (size_t)g->n_ops * sizeof(mptl_op_stats)) == 0);
  for (int i = 0; i < g->n_params; i++) {
    if (g->params[i].buffer) continue;
    CHECK(memcmp(a->model->params[i]->data, b->model->params[i]->data,
                 g->params[i].numel * sizeof(float)) == 0);
    CHECK(memcmp(a->model->grads[i]->data, b->model->grads[i]->data,
                 g->params[i].numel * sizeof(float)) == 0);
  }
  return 0;
}

/* Fails at the n-th call of the second step; *failed: there was one. */
static int fails_at(int n, mptl_device *device, bool *failed) {
  training t, fresh;
  mptl_result result, expected;
  bool finite;
  CHECK(begin(&t, device) == 0 && begin(&fresh, device) == 0);
  CHECK(step(&t, 0, &result) == MPTL_OK && step(&fresh, 0, &expected) == MPTL_OK);
  calls_left = n;
  *failed = step(&t, 1, &result) != MPTL_OK;
  calls_left = 0;
  if (*failed) {
    CHECK(strstr(mptl_error(), "no luck") != NULL);
    CHECK(mptl_program_backward(t.program, 1, &finite) == MPTL_EINVAL);
    CHECK(step(&t, 1, &result) == MPTL_OK);
  }
  CHECK(step(&fresh, 1, &expected) == MPTL_OK);
  CHECK(result.applied && result.loss == expected.loss && result.correct == expected.correct);
  CHECK(same(&t, &fresh) == 0);
  end(&t);
  end(&fresh);
  return 0;
}

static int fails_everywhere(mptl_device *device) {
  bool failed = true;
  int n = 0;
  while (failed && n < MOST_CALLS) CHECK(fails_at(++n, device, &failed) == 0);
  CHECK(n > 20 && n < MOST_CALLS);
  return 0;
}

int main(void) {
  mptl_device *device;
  CHECK(mptl_device_open(&device, "cpu", 0) == MPTL_OK);
  cpu = device->backend;
  mptl_backend failing = *cpu;
  failing.run = run, failing.find_ranges = find_ranges, failing.round = round_arrays,
  failing.fill = fill;
  failing.max_abs = max_abs;
  device->backend = &failing;
  if (fails_everywhere(device) != 0) return 1;
  failing.is_host =
      false; /* then gradients are rounded together at the end, and vectors by channel are kept */
  if (fails_everywhere(device) != 0) return 1;
  mptl_device_close(device);
  return 0;
}

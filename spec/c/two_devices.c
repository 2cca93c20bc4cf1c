/* Two devices in one process, each with a thread of its own: they train side by side, without a
 * lock between them, and get the bits that each gets alone. One of them stops inside of a stage
 * until the other has made a whole step, and the other way round: with a lock around steps both
 * would wait for ever.
 *
 * usage: two_devices NAME NAME      "cpu cpu" if none are given; the second one has another number
 * of threads, if it is a CPU
 */
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "backend/backend.h"
#include "check.h"
#include "mptl/program.h"

enum { BATCH = 4, CHANNELS = 2, SIDE = 6, CLASSES = 3, STEPS = 4, MOST_PARAMS = 8 };

typedef struct training {
  const char *name;
  int threads;
  struct training *other; /* NULL: it is alone */
  sem_t stepped;          /* raised by each step */
  const mptl_backend *backend;
  bool waited;
  mptl_graph *graph;
  double loss[STEPS];
  float params[MOST_PARAMS][512];
  int failed;
} training;

static _Thread_local training *mine;

/* The first stage of each step but the first one waits for a whole step of the other. */
static mptl_status run(mptl_device *device, const mptl_stage *stage, const mptl_step *step,
                       bool forward) {
  if (mine->other != NULL && !mine->waited) sem_wait(&mine->other->stepped);
  mine->waited = true;
  return mine->backend->run(device, stage, step, forward);
}

static int add(mptl_graph *g, const char *kind, int input, int out) {
  int value = -1;
  mptl_attributes a = mptl_attributes_default();
  a.out = out;
  return mptl_graph_add(g, &value, mptl_op_kind_find(kind), kind, 1, &input, &a) == MPTL_OK ? value
                                                                                            : -1;
}

static int make_graph(mptl_graph **graph) {
  int x;
  CHECK(mptl_graph_create(graph) == MPTL_OK);
  CHECK(mptl_graph_input(*graph, &x, (mptl_shape){3, CHANNELS, SIDE, SIDE}) == MPTL_OK);
  x = add(*graph, "relu", add(*graph, "batchnorm2d", add(*graph, "conv2d", x, 4), 0), 0);
  CHECK(mptl_graph_flatten(*graph, &x, x) == MPTL_OK);
  x = add(*graph, "nll_loss", add(*graph, "log_softmax", add(*graph, "linear", x, CLASSES), 0), 0);
  CHECK(x >= 0 && (*graph)->n_params <= MOST_PARAMS);
  return 0;
}

static int make_assignment(mptl_assignment **assignment, const mptl_graph *graph) {
  static const char *const formats[MPTL_ROLES] = {"FP(4,3,4)", "FP(5,2,0)", "FP(4,3,auto)",
                                                  "FP(6,9,auto)"};
  mptl_candidates c;
  for (int role = 0; role < MPTL_ROLES; role++) {
    CHECK(mptl_format_parse(&c.high[role], formats[role]) == MPTL_OK);
    c.low[role] = c.high[role];
  }
  CHECK(mptl_assignment_create(assignment, graph, BATCH, &c) == MPTL_OK);
  return 0;
}

static int steps(training *t, mptl_program *program) {
  float images[BATCH * SIDE * SIDE * CHANNELS];
  int32_t labels[BATCH];
  const mptl_update update = mptl_update_default(mptl_optimizer_find("sgd"));
  for (int i = 0; i < BATCH; i++) labels[i] = i % CLASSES;
  for (int n = 0; n < STEPS; n++) {
    mptl_result result;
    for (int i = 0; i < BATCH * SIDE * SIDE * CHANNELS; i++)
      images[i] = (float)((i * 37 + n) % 64) / 64 - 0.5f;
    t->waited = n == 0;
    CHECK(mptl_program_step(program, images, &(mptl_targets){.labels = labels}, BATCH, (uint32_t)n,
                            &update, &result) == MPTL_OK);
    t->loss[n] = result.loss;
    sem_post(&t->stepped);
  }
  return 0;
}

static int train(training *t) {
  mptl_device *device;
  mptl_assignment *assignment;
  mptl_model *model;
  mptl_program *program;
  CHECK(make_graph(&t->graph) == 0 && make_assignment(&assignment, t->graph) == 0);
  CHECK(mptl_device_open(&device, t->name, t->threads) == MPTL_OK);
  t->backend = device->backend;
  mptl_backend waiting = *device->backend;
  waiting.run = run;
  device->backend = &waiting;
  CHECK(mptl_model_create(&model, t->graph, &(mptl_model_options){.seed = 1, .device = device}) ==
        MPTL_OK);
  CHECK(mptl_program_create(&program, model, assignment,
                            &(mptl_program_options){.batch = BATCH, .train = true}) == MPTL_OK);
  CHECK(steps(t, program) == 0);
  for (int i = 0; i < t->graph->n_params; i++) {
    CHECK(t->graph->params[i].numel <= sizeof t->params[i] / sizeof *t->params[i]);
    CHECK(mptl_tensor_read(model->params[i], 0, t->graph->params[i].numel, t->params[i]) ==
          MPTL_OK);
  }
  mptl_program_destroy(program);
  mptl_model_destroy(model);
  mptl_assignment_destroy(assignment);
  mptl_graph_destroy(t->graph);
  mptl_device_close(device);
  return 0;
}

static void *train_thread(void *argument) {
  mine = argument;
  mine->failed = train(mine);
  if (mine->failed != 0)
    for (int i = 0; i < STEPS; i++)
      sem_post(&mine->stepped); /* the other one does not wait for ever */
  return NULL;
}

static int start(training *t, const char *name, int threads, training *other) {
  memset(t, 0, sizeof *t);
  t->name = name;
  t->threads = threads;
  t->other = other;
  CHECK(sem_init(&t->stepped, 0, 0) == 0);
  return 0;
}

static int same(const training *a, const training *b) {
  CHECK(memcmp(a->loss, b->loss, sizeof a->loss) == 0);
  CHECK(memcmp(a->params, b->params, sizeof a->params) == 0);
  return 0;
}

int main(int argc, char **argv) {
  static training alone[2], together[2];
  const char *names[2] = {argc > 2 ? argv[1] : "cpu", argc > 2 ? argv[2] : "cpu"};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    CHECK(start(&alone[i], names[i], 1 + i, NULL) == 0 &&
          start(&together[i], names[i], 1 + i, &together[1 - i]) == 0);
    train_thread(&alone[i]);
  }
  for (int i = 0; i < 2; i++)
    CHECK(pthread_create(&threads[i], NULL, train_thread, &together[i]) == 0);
  for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  for (int i = 0; i < 2; i++) {
    CHECK(alone[i].failed == 0 && together[i].failed == 0);
    CHECK(same(&alone[i], &together[i]) == 0);
  }
  return 0;
}

/* The boundary between programs and devices.
 *
 * A backend is a table of functions for one kind of device. A device is an instance of a backend,
 * and the first argument of each function. A program gives operators their operands as sources,
 * sinks and arrays in the device's memory. The results of a step, such as statistics and the loss,
 * are in the device's memory, too, until the program downloads them once a step.
 */
#ifndef MPTL_BACKEND_H
#define MPTL_BACKEND_H

#include <stdatomic.h>

#include "core/memory.h"
#include "kernels/cpu/layers.h"
#include "kernels/losses.h"
#include "kernels/operands.h"
#include "mptl/device.h"
#include "mptl/graph.h"
#include "mptl/program.h"
#include "mptl/round.h"

#define MPTL_MAX_PARAMS 4 /* parameters and buffers of one operator */

/* ---- An operator of a program: three structs, each with one writer ----
 *
 * mptl_operator never changes, mptl_operands changes with the assignment or the workspace,
 * mptl_step with each step. */

/* An operator of a program, without operands. compile.c makes it, once. */
typedef struct mptl_operator {
  mptl_device *device;
  const mptl_graph *graph;
  const mptl_op *op;
  int batch;
  bool train;
  mptl_compute_setting compute;
  int from[MPTL_MAX_INPUTS]; /* which member of its stage makes the input; -1: the input is in
                                memory */
  void *state;               /* the backend's, from op_create */
} mptl_operator;

/* Where results go: a sink (kernels/operands.h) without what changes from step to step, which is
 * its key, statistics and exponents. */
typedef struct mptl_destination {
  void *data;
  size_t size;
  mptl_rounder *rounder; /* FP(e,m,auto): ranges.c sets its bias shift before the stage runs */
  uint64_t index0;
  bool accumulate, wanted, part;
  int tensor; /* operator * MPTL_ROLES + role: selects statistics and random bits */
} mptl_destination;

/* The weights of a GEMM operator that rounds them itself: see rounds_weights. */
typedef struct mptl_unrounded {
  const float *master; /* NULL: no such weights */
  size_t n;
  const mptl_rounder *rounder; /* NULL: not rounded */
  int tensor;
} mptl_unrounded;

/* The operands of an operator: addresses, sizes, rounders. operands.c sets them, when the
 * assignment or the workspace changes. */
typedef struct mptl_operands {
  /* Rounded inputs; in backward only if the kind has backward_reads_in. The operator `input` reads
   * the batch of images. */
  mptl_source in[MPTL_MAX_INPUTS];

  mptl_source out;       /* backward: the rounded output, if backward_reads_out */
  mptl_destination y;    /* forward: the output */
  mptl_source dy;        /* backward: the gradient of the output, if it is in memory */
  bool may_overwrite_dy; /* nothing else reads it later */
  mptl_destination dx[MPTL_MAX_INPUTS]; /* backward: the gradients of the inputs */

  /* The rounder of the first parameter. The others have the same format, in FP(e,m,auto) with other
   * shifts. */
  const mptl_rounder *theta_rounder;

  /* Rounded parameters. For buffers, and parameters in binary32 or in `weights`, the masters. */
  const float *theta[MPTL_MAX_PARAMS];

  mptl_unrounded weights;          /* the first parameter, if the operator rounds it */
  float *buffers[MPTL_MAX_PARAMS]; /* running statistics, which forward updates in training; else
                                      NULL */
  float *dtheta[MPTL_MAX_PARAMS];  /* backward: the unrounded gradients of parameters */

  float *saved;         /* kind->saved_by_channel vectors that live from forward to backward */
  mptl_targets targets; /* of a loss: values in its input's layout; labels are places in it */
  mptl_loss *loss;      /* set by the forward of a loss */
} mptl_operands;

/* What operators read of this step. step.c sets it. */
typedef struct mptl_step {
  uint64_t seed;
  uint32_t number;
  int n_valid; /* samples that count, from the first on: fewer in the last batch of a test */
  const float *images; /* in the device's memory */
  /* in forward: rounding parameters is counted; backward rounds them again */
  bool counts_parameters;

  /* Forward: find_ranges has run for this stage, and nothing has changed its scratch memory
   * since. */
  bool ranged;

  mptl_op_stats *stats;         /* by operator and role, in the device's memory */
  mptl_op_exponents *exponents; /* likewise; NULL: exponents are not counted */
} mptl_step;

/* The key of the random bits that round a tensor. */
static inline mptl_key mptl_tensor_key(const mptl_step *step, int tensor) {
  return mptl_make_key(step->seed, MPTL_STREAM_ROUND, (uint32_t)tensor, step->number);
}

/* An operator of a stage. */
typedef struct mptl_member {
  const mptl_operator *is;
  const mptl_operands *on;
} mptl_member;

/* Operators that run as one: a single operator of any kind, or several pointwise operators. Of
 * these, each except the last has one consumer, a later member of the stage. Values between members
 * are rounded and counted, but not stored. */
typedef struct mptl_stage {
  int n;
  const mptl_member *members; /* in graph order; only the output of the last one is stored */
  void *scratch;              /* aligned as by alloc; all stages have the same */
} mptl_stage;

/* ---- Calls ---- */

/* One run of an operator, forward or backward: the three structs above in one, for the code of
 * operators. mptl_call_of makes it anew each time. The comments of the members are above. */
typedef struct mptl_call {
  mptl_device *device;
  const mptl_graph *graph;
  const mptl_op *op;
  int batch;
  bool train;
  mptl_compute_setting compute;
  void *state;
  const int *from;

  mptl_source in[MPTL_MAX_INPUTS], out, dy;
  bool may_overwrite_dy;
  mptl_sink y, dx[MPTL_MAX_INPUTS];
  const mptl_rounder *theta_rounder;
  const float *const *theta;
  mptl_rounding weights; /* dst is NULL; rounder is NULL if they are not rounded */
  float *const *buffers;
  float *const *dtheta;
  float *saved;
  void *scratch; /* the stage's */
  mptl_targets targets;
  mptl_loss *loss;

  int n_valid;
  bool ranging; /* only find the ranges of the sinks: do not update running statistics */
  mptl_key key; /* random bits for the operator itself in this step: the mask of dropout */
} mptl_call;

/* Makes a call of a member. member->on NULL: without operands. step NULL: without keys, statistics
 * and images, and addresses may not be set yet. */
MPTL_API void mptl_call_of(mptl_call *call, const mptl_member *member, const mptl_step *step,
                           void *scratch);

/* Makes a call's sinks, forward or backward, find ranges instead of storing results:
 * found[k].max_abs becomes the range of sink k. found is in the device's memory. Nothing is
 * counted. */
MPTL_API void mptl_call_find_ranges(mptl_call *call, bool forward, mptl_round_stats *found);

/* Sets *sinks to the sinks of a call: forward the output's, backward the gradients' of the inputs.
 * Returns how many. */
static inline int mptl_call_sinks(mptl_call *call, bool forward, mptl_sink **sinks) {
  *sinks = forward ? &call->y : call->dx;
  return forward ? 1 : call->op->n_in;
}

/* Whether a loss counts correct samples if it has targets of that type. */
static inline bool mptl_counts_accuracy(const mptl_op_kind *loss, mptl_target_type targets) {
  return targets == MPTL_LABELS || loss->accuracy_by_values;
}

/* The layouts of a call's input k and of its output. */
static inline mptl_shape mptl_call_input(const mptl_call *call, int k) {
  return mptl_input_layout(call->graph, call->op, k);
}
static inline mptl_shape mptl_call_output(const mptl_call *call) {
  return mptl_output_layout(call->graph, call->op);
}

/* The number of features of a call's flat first input, or of channels of an image. */
static inline size_t mptl_call_features(const mptl_call *call) {
  return (size_t)mptl_input_shape(call->graph, call->op, 0).c;
}

/* The number of elements of a value in the call's batch. */
static inline size_t mptl_batch_numel(const mptl_call *call, int value) {
  return mptl_shape_numel(call->graph->values[value].shape) * (size_t)call->batch;
}

/* Returns status. After a failure, puts the operator's name before the message. */
static inline mptl_status mptl_in_operator(mptl_status status, const mptl_op *op) {
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "%s (%s)", op->name, op->kind->name);
}

/* ---- Backends ---- */

/* A trained parameter, for the update. Arrays are in the device's memory. */
typedef struct mptl_trained {
  float *p;                      /* master */
  float *state[MPTL_MAX_STATES]; /* optimizer state; NULL beyond the optimizer's number of states */
  const float *g;                /* rounded gradient, multiplied by the loss scale */
  size_t n;
  int group; /* its parameter group */
} mptl_trained;

/* The trained parameters of a model, in the backend's form. */
typedef struct mptl_trained_list mptl_trained_list;

/* The functions of a backend. They keep state only in their device. */
typedef struct mptl_backend {
  bool is_host;      /* the host may read and write the device's memory */
  int max_stage_ops; /* most operators of a stage */

  /* Whether GEMM operators round their weights themselves, forward and backward, when they read
   * them: theta[0] is the master, and weights says how to round it. Only forward counts. */
  bool rounds_weights;

  /* Releases a device. Everything that was made on it has been released before. */
  void (*close)(mptl_device *device);

  /* Memory. A device does its work in the order in which functions are called, and may still be at
   * work when they return. The next download or synchronize reports an error in such work.
   *
   * alloc: aligned to 64 bytes, counted, not initialised. Returns NULL if there is no memory, but
   * never for 0 bytes. */
  void *(*alloc)(mptl_device *device, size_t bytes);
  void (*free)(mptl_device *device, void *p); /* NULL is allowed */

  /* upload: the caller may overwrite host when it returns. download: waits until all bytes are
   * there. */
  mptl_status (*upload)(mptl_device *device, void *to, const void *host, size_t bytes);
  mptl_status (*download)(mptl_device *device, void *host, const void *from, size_t bytes);
  mptl_status (*zero)(mptl_device *device, void *p, size_t bytes);
  mptl_status (*synchronize)(mptl_device *device); /* waits for all work */

  /* Pinned host memory (mptl_device_host_alloc). */
  void *(*host_alloc)(mptl_device *device, size_t bytes);
  void (*host_free)(mptl_device *device, void *p); /* NULL is allowed */

  /* An upload that need not copy host before it returns. The caller must not change or free host
   * until the next download or synchronize. */
  mptl_status (*lend)(mptl_device *device, void *to, const void *host, size_t bytes);

  /* Operators. op_create sets *state to what the backend keeps for an operator; NULL: nothing. */
  mptl_status (*op_create)(mptl_device *device, void **state, const mptl_operator *op);
  void (*op_destroy)(mptl_device *device, const mptl_operator *op);

  /* A hint before prepare: all operators with their present operands, so that the backend can do
   * slow preparations of several operators in parallel. Only prepare reports errors. NULL: the
   * backend does not need it. */
  void (*expect)(mptl_device *device, const mptl_member *members, int n);

  /* Prepares a stage for the sizes and formats of its operands; their addresses are not set yet.
   * Sets *scratch_bytes to the scratch memory that the stage needs. Called before the first run,
   * and again when a format has changed. */
  mptl_status (*prepare)(mptl_device *device, const mptl_stage *stage, size_t *scratch_bytes);

  /* See mptl_compute_name. */
  const char *(*compute)(mptl_device *device, mptl_format a, mptl_format b, int channel_groups,
                         size_t parameters, mptl_compute_setting setting);

  /* Sets how the product of one pass is computed, except op and pass, for an operator of a prepared
   * stage. Returns false if there is no such product. NULL: the backend does not report it. */
  bool (*product)(mptl_device *device, mptl_product_way *way, const mptl_member *member, int pass);

  /* Runs a stage, forward or backward. Messages begin with the operator's name. */
  mptl_status (*run)(mptl_device *device, const mptl_stage *stage, const mptl_step *step,
                     bool forward);

  /* Finds the ranges of the results of member i of a stage, forward or backward: largest[k] is the
   * largest finite magnitude that goes to sink k. Results of other members, which member i reads,
   * are rounded as in run. Nothing is stored, counted or updated. */
  mptl_status (*find_ranges)(mptl_device *device, const mptl_stage *stage, const mptl_step *step,
                             bool forward, int i, float *largest);

  /* Rounds a list of arrays. No two of them may have the same dst. The caller may change the list
   * when it returns. */
  mptl_status (*round)(mptl_device *device, const mptl_rounding *arrays, size_t count);

  /* Rounds the same value n times into a sink. */
  mptl_status (*fill)(mptl_device *device, const mptl_sink *sink, float value, size_t n);

  /* Sets *largest, in the host's memory, to the largest finite magnitude of an array. Waits for the
   * device. */
  mptl_status (*max_abs)(mptl_device *device, float *largest, const float *x, size_t n);

  /* Makes the list of a model's trained parameters, for the functions that follow. */
  mptl_status (*list_create)(mptl_device *device, mptl_trained_list **list,
                             const mptl_trained *params, size_t count);
  void (*list_destroy)(mptl_device *device, mptl_trained_list *list); /* NULL is allowed */

  /* Sets *flag, in the device's memory, to 1 if a gradient has an infinity or NaN. */
  mptl_status (*find_nonfinite)(mptl_device *device, uint32_t *flag, const mptl_trained_list *list);

  /* Updates the parameters and the optimizer state: factors[n_groups] by parameter group. */
  mptl_status (*update)(mptl_device *device, const mptl_trained_list *list, mptl_optimizer_id id,
                        const mptl_factors *factors, int n_groups);

  /* Sets *sum, in the host's memory, to the sum of the squares of all gradients, added in binary64
   * in a fixed order. Waits for the device. */
  mptl_status (*sum_squares)(mptl_device *device, double *sum, mptl_trained_list *list);

  /* See mptl_device_find_peaks. *peaks is all zeros before. */
  mptl_status (*find_peaks)(mptl_device *device, mptl_peaks *peaks, double seconds);
} mptl_backend;

/* A device: the beginning of each backend's struct for it. */
struct mptl_device {
  const mptl_backend *backend;
  char name[16]; /* "cpu", "cuda:0" */
  int threads;   /* of the host, for which operators are compiled and with which they run */
  atomic_int users;
};

/* Opens the CPU with that many threads; 0: the default (mptl_default_threads). */
mptl_status mptl_cpu_open(mptl_device **device, int threads);

#endif

/* The boundary between programs and devices. A backend is a table of functions; a device is a backend with what it needs to run, and the
 * first argument of each function. A program hands operators their operands as sources, sinks and plain arrays in the device's memory.
 * What a step finds out (statistics, the loss) is gathered in the device's memory, too, and comes to the host once a step.
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

/* ---- An operator of a program: three records, each with one writer ---- */

/* What it is. compile.c makes it, once. */
typedef struct mptl_operator {
  mptl_device *device;
  const mptl_graph *graph;
  const mptl_op *op;
  int batch;
  bool train;
  mptl_compute_setting compute;
  int from[MPTL_MAX_INPUTS]; /* which operator of its stage makes the input; -1: it is in memory, in operands->in[] */
  void *state;               /* the backend's, from op_create */
} mptl_operator;

/* Where results go, whatever the step is: a sink without its key, statistics and exponents. */
typedef struct mptl_destination {
  void *data;
  size_t size;
  mptl_rounder *rounder; /* FP(e,m,auto): ranges.c fits it before the stage runs */
  uint64_t index0;
  bool accumulate, wanted, part;
  int tensor; /* operator * MPTL_ROLES + role: what is counted, and the stream of its random bits */
} mptl_destination;

/* A parameter of several dimensions that the operator rounds itself, see rounds_weights. */
typedef struct mptl_unrounded {
  const float *master; /* NULL: there is none */
  size_t n;
  const mptl_rounder *rounder; /* NULL: it stays as it is */
  int tensor;
} mptl_unrounded;

/* What it works on: addresses, sizes, rounders. layout.c makes it, when the assignment or the workspace changes. */
typedef struct mptl_operands {
  mptl_source
      in[MPTL_MAX_INPUTS]; /* rounded inputs; in backward only if backward_reads_in. The input operator's is the batch's images */
  mptl_source out;         /* backward: rounded output if backward_reads_out */
  mptl_destination y;      /* forward: the output */
  mptl_source dy;          /* backward: gradient of the output, if it is in memory */
  mptl_destination dx[MPTL_MAX_INPUTS]; /* backward: gradients of the inputs */

  const mptl_rounder
      *theta_rounder; /* of the first parameter; others have its format, but an auto_bias format's shift is their own */
  const float *theta[MPTL_MAX_PARAMS]; /* rounded parameters; the master for buffers (running statistics, updated in training) */
  mptl_unrounded weights;              /* the first parameter, if the operator rounds it: theta[0] is the master then */
  float *buffers[MPTL_MAX_PARAMS];     /* writable, for buffers only */
  float *dtheta[MPTL_MAX_PARAMS];      /* backward: unrounded gradients of the parameters */

  float *saved;         /* kind->saved_by_channel vectors by channel that keep their contents from forward to backward */
  mptl_targets targets; /* of a loss, in its input's order; the valid samples' labels are in range */
  mptl_loss *loss;      /* set by a loss's forward */
} mptl_operands;

/* What this step is. step.c makes it. */
typedef struct mptl_step {
  uint64_t seed;
  uint32_t number;
  int n_valid;            /* samples of the batch that count (evaluation of a last, smaller batch) */
  const float *images;    /* of the batch, in the device's memory */
  bool counts_parameters; /* forward does; backward rounds them again, to the same bits */
  bool ranged;            /* forward: ranges of this stage were found already, and its scratch memory is as find_ranges left it */
  mptl_op_stats *stats;   /* by operator and role, in the device's memory */
  mptl_op_exponents *exponents; /* likewise; NULL: exponents are not counted */
} mptl_step;

/* Random bits of a tensor's rounding. */
static inline mptl_key mptl_tensor_key(const mptl_step *step, int tensor) {
  return mptl_make_key(step->seed, MPTL_STREAM_ROUND, (uint32_t)tensor, step->number);
}

/* Operators that run as one: a single operator of any kind, or pointwise ones of which each except the last has one consumer, a later one
 * in the stage. What passes between them is rounded and counted, but never in memory. */
typedef struct mptl_member {
  const mptl_operator *is;
  const mptl_operands *on;
} mptl_member;

typedef struct mptl_stage {
  int n;
  const mptl_member *members; /* in graph order; the last one's output is stored */
  void *scratch;              /* shared by the stages; aligned as what alloc returns */
} mptl_stage;

/* ---- What operators get ---- */

/* The three records put together for one run of an operator: made by mptl_call_of, read, and forgotten. */
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
  mptl_sink y, dx[MPTL_MAX_INPUTS];
  const mptl_rounder *theta_rounder;
  const float *const *theta;
  mptl_rounding weights; /* dst is NULL; so is rounder where they stay as they are */
  float *const *buffers;
  float *const *dtheta;
  float *saved;
  void *scratch; /* the backend's */
  mptl_targets targets;
  mptl_loss *loss;

  int n_valid;
  bool ranging; /* only the sinks' ranges are wanted: running statistics stay as they are */
  mptl_key key; /* random bits of the operator's own, another at every step: dropout's mask */
} mptl_call;

/* on NULL: its operands are not known yet. step NULL: addresses and keys mean nothing yet. */
MPTL_API void mptl_call_of(mptl_call *call, const mptl_member *member, const mptl_step *step, void *scratch);

/* Makes the call's sinks of a direction find ranges: sink k in found[k], which is in the device's memory. Nothing is counted. */
MPTL_API void mptl_call_find_ranges(mptl_call *call, bool forward, mptl_round_stats *found);

/* The sinks of a direction: the output's, or those of the inputs' gradients. Returns how many. */
static inline int mptl_call_sinks(mptl_call *call, bool forward, mptl_sink **sinks) {
  *sinks = forward ? &call->y : call->dx;
  return forward ? 1 : call->op->n_in;
}

/* Whether a loss counts correct samples for targets of that type. */
static inline bool mptl_counts_accuracy(const mptl_op_kind *loss, mptl_target_type targets) {
  return targets == MPTL_LABELS || loss->accuracy_by_values;
}

/* The layouts of a call's k-th input and of its output. */
static inline mptl_shape mptl_call_input(const mptl_call *call, int k) { return mptl_input_layout(call->graph, call->op, k); }
static inline mptl_shape mptl_call_output(const mptl_call *call) { return mptl_output_layout(call->graph, call->op); }

/* Features of a call's flat input, in whatever layout; channels of an image. */
static inline size_t mptl_call_features(const mptl_call *call) { return (size_t)mptl_input_shape(call->graph, call->op, 0).c; }

/* Elements of a value of the call's batch. */
static inline size_t mptl_batch_numel(const mptl_call *call, int value) {
  return mptl_shape_numel(call->graph->values[value].shape) * (size_t)call->batch;
}

/* A failure's message, beginning with the operator. */
static inline mptl_status mptl_in_operator(mptl_status status, const mptl_op *op) {
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "%s (%s)", op->name, op->kind->name);
}

/* ---- Backends ---- */

/* A trained parameter, for the update. */
typedef struct mptl_trained {
  float *p;                      /* master */
  float *state[MPTL_MAX_STATES]; /* the optimizer's; NULL beyond those it has */
  const float *g;                /* rounded gradient */
  size_t n;
  int group; /* of parameters with the same settings */
} mptl_trained;

typedef struct mptl_trained_list mptl_trained_list; /* the backend's list of a model's */

/* A backend's functions. None of them keeps anything outside of its device. */
typedef struct mptl_backend {
  bool is_host;      /* the host may read and write the device's memory */
  int max_stage_ops; /* operators that a stage has at most */
  bool
      rounds_weights; /* operators round parameters of several dimensions, the weights of matrix products, as they read them: theta has the
                          master then, and call->weights says how (dst is NULL; so is rounder where they stay as they are), forward and,
                          uncounted, backward */

  void (*close)(mptl_device *device); /* releases it; nothing that was made on it is left */

  /* Memory. Work on it is done in the order in which it is asked for, and may still be under way when a call returns; what fails then is
   * reported by the next download or synchronize. */
  void *(*alloc)(mptl_device *device,
                 size_t bytes);               /* 64-byte aligned, counted, uninitialised; NULL when there is none; never NULL
                                                        for 0 bytes */
  void (*free)(mptl_device *device, void *p); /* NULL is allowed */
  mptl_status (*upload)(mptl_device *device, void *to, const void *host,
                        size_t bytes); /* host may be overwritten when it returns */
  mptl_status (*download)(mptl_device *device, void *host, const void *from, size_t bytes); /* returns when all is there */
  mptl_status (*zero)(mptl_device *device, void *p, size_t bytes);
  mptl_status (*synchronize)(mptl_device *device); /* waits for all work */

  /* Pinned host memory (mptl_device_host_alloc), and an upload of something that keeps its contents until the next download or synchronize:
   * pinned memory is read where it is. */
  void *(*host_alloc)(mptl_device *device, size_t bytes);
  void (*host_free)(mptl_device *device, void *p); /* NULL is allowed */
  mptl_status (*lend)(mptl_device *device, void *to, const void *host, size_t bytes);

  /* Operators. op_create makes what an operator needs for as long as it is: *state, NULL if nothing. */
  mptl_status (*op_create)(mptl_device *device, void **state, const mptl_operator *op);
  void (*op_destroy)(mptl_device *device, const mptl_operator *op);

  /* Optional hint before prepare: all operators in their final state, so that slow preparation can run in parallel. prepare reports
   * errors. NULL: nothing to do. */
  void (*expect)(mptl_device *device, const mptl_member *members, int n);

  /* Stages. prepare gets a stage ready for operands of the sizes and formats that its members have now (addresses are not set yet), and
   * returns how much scratch memory it takes. It comes before the first run and whenever a format has changed. */
  mptl_status (*prepare)(mptl_device *device, const mptl_stage *stage, size_t *scratch_bytes);

  /* Name of the way in which a matrix product of two formats is computed: see mptl_compute_name. */
  const char *(*compute)(mptl_device *device, mptl_format a, mptl_format b, int groups, mptl_compute_setting setting);

  /* How a pass (mptl_product_way) of an operator of a prepared stage is computed, except op and pass; false: there is no such product. NULL:
   * the backend reports none. */
  bool (*product)(mptl_device *device, mptl_product_way *way, const mptl_member *member, int pass);

  /* Runs a stage, forward or backward. Messages begin with the operator. */
  mptl_status (*run)(mptl_device *device, const mptl_stage *stage, const mptl_step *step, bool forward);

  /* Finds the largest finite magnitudes of what member i of a stage sends to its sinks in a direction: largest[k] of sink k. The members that
   * it depends on round as they will in run; nothing is stored, counted or changed. */
  mptl_status (*find_ranges)(mptl_device *device, const mptl_stage *stage, const mptl_step *step, bool forward, int i,
                             float *largest);

  /* Whole arrays: a list of them rounded, none of which is another one's dst; n times the same value rounded into a sink. The list is
   * read before round returns. */
  mptl_status (*round)(mptl_device *device, const mptl_rounding *arrays, size_t count);
  mptl_status (*fill)(mptl_device *device, const mptl_sink *sink, float value, size_t n);

  /* Largest finite magnitude of an array, to the host. */
  mptl_status (*max_abs)(mptl_device *device, float *largest, const float *x, size_t n);

  /* The trained parameters of a model, listed once. find_nonfinite sets *flag, in the device's memory, to 1 if one of their gradients
   * holds an infinity or NaN. */
  mptl_status (*list_create)(mptl_device *device, mptl_trained_list **list, const mptl_trained *params, size_t count);
  void (*list_destroy)(mptl_device *device, mptl_trained_list *list); /* NULL is allowed */
  mptl_status (*find_nonfinite)(mptl_device *device, uint32_t *flag, const mptl_trained_list *list);
  mptl_status (*update)(mptl_device *device, const mptl_trained_list *list, mptl_optimizer_id id, const mptl_factors *factors,
                        int groups);

  /* The sum of the squares of all gradients, in binary64 and in a fixed order, to the host. */
  mptl_status (*sum_squares)(mptl_device *device, double *sum, mptl_trained_list *list);

  /* mptl_device_find_peaks; *peaks is all zeros before. */
  mptl_status (*find_peaks)(mptl_device *device, mptl_peaks *peaks, double seconds);
} mptl_backend;

/* The beginning of every backend's own record of a device. */
struct mptl_device {
  const mptl_backend *backend;
  char name[16]; /* "cpu", "cuda:0" */
  int threads;   /* that operators are compiled for and run with, of the host */
  atomic_int users;
};

/* The CPU, with so many threads. */
mptl_status mptl_cpu_open(mptl_device **device, int threads);

#endif

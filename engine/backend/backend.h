/* The boundary between programs and devices. A backend is a table of functions; a device is a backend with what it needs to run, and the
 * first argument of each function. A program hands operators their operands as sources, sinks and plain arrays in the device's memory.
 * What a step finds out (statistics, the loss) is gathered in the device's memory, too, and comes to the host once a step.
 */
#ifndef MPTL_BACKEND_H
#define MPTL_BACKEND_H

#include <stdatomic.h>

#include "core/memory.h"
#include "kernels/cpu/layers.h"
#include "kernels/exponents.h"
#include "mptl/device.h"
#include "mptl/graph.h"
#include "mptl/program.h"
#include "mptl/round.h"

#define MPTL_MAX_PARAMS 4 /* parameters and buffers of one operator */

/* A value in memory as an operator reads it: NHWC, rounded already, in binary32 or as its format's codes. */
typedef struct mptl_source {
  const void *data;
  size_t size;                 /* bytes an element takes: 1 or 2 are codes, 4 is binary32; 0: there is no such value */
  const mptl_rounder *rounder; /* what it was rounded by; NULL for a sum of gradients, which is not rounded again */
} mptl_source;

/* Where an operator's results go: each is rounded once and counted, then stored, or added to what is there (the gradient of a
 * value with several consumers, in binary32). */
typedef struct mptl_sink {
  void *data;
  size_t size;           /* as a source's; 0: not stored */
  mptl_rounder *rounder; /* of an auto_bias format: the operator fits it to all the results before it rounds the first */
  mptl_key key;          /* random bits; elements count from index0 */
  uint64_t index0;
  bool accumulate;
  bool wanted;               /* false for a gradient that is not; nothing else is set then */
  bool part;                 /* of a slice's input: only the slice's channels, others write the rest */
  bool measure;              /* only while the backend looks for what to fit the rounder to: see mptl_measure_begin in cpu.h */
  mptl_round_stats *stats;   /* of the tensor; the operator adds to it */
  mptl_exponents *exponents; /* of the tensor's values before they are rounded; the operator adds to it. NULL: not wanted */
} mptl_sink;

/* FP(e,m,auto): whether the sink's rounder is to be fitted to the results. An operator whose sinks do computes them twice. */
static inline bool mptl_fits(const mptl_sink *sink) { return sink->wanted && sink->rounder->format.auto_bias; }

/* What nll_loss finds out of a batch. */
typedef struct mptl_loss {
  double sum;        /* of the rounded losses of the valid samples */
  int32_t correct;   /* valid samples whose largest input is the label's */
  int32_t bad_label; /* for backends: programs look at labels before */
} mptl_loss;

/* An array to be rounded: dst[i] = round(src[i]), i < n; dst may be src. All addresses are the device's, the rounder's is the host's. */
typedef struct mptl_rounding {
  float *dst; /* NULL: nothing is rounded, only exponents are counted; rounder and stats mean nothing then */
  const float *src;
  size_t n; /* 0 is allowed */
  const mptl_rounder *rounder;
  mptl_key key; /* random bits; elements count from index0 */
  uint64_t index0;
  mptl_round_stats *stats;   /* adds; NULL: not counted */
  mptl_exponents *exponents; /* of the elements before they are rounded; adds; NULL: not counted */
} mptl_rounding;

/* One operator of a program, with its operands: addresses are the device's, rounders the host's. */
typedef struct mptl_call {
  mptl_device *device;
  const mptl_graph *graph;
  const mptl_op *op;
  int batch;
  bool train;
  mptl_compute_setting compute;
  void *state;   /* the backend's, from op_create */
  float *saved;  /* op_saved_floats of memory that keeps its contents from forward to backward */
  void *scratch; /* the backend's, 64-byte aligned: see prepare */
  mptl_key key;  /* random bits of the operator's own, another at every step: dropout's mask */

  int from[MPTL_MAX_INPUTS];       /* which operator of the stage makes the input; -1: it is in memory, in in[] */
  mptl_source in[MPTL_MAX_INPUTS]; /* rounded inputs; in backward only if backward_reads_in */
  mptl_source out;                 /* backward: rounded output if backward_reads_out */
  mptl_sink y;                     /* forward: the output */
  mptl_source dy;                  /* backward: gradient of the output, if it is in memory */
  mptl_sink dx[MPTL_MAX_INPUTS];   /* backward: gradients of the inputs */

  const mptl_rounder
      *theta_rounder; /* of the first parameter; others have its format, but an auto_bias format's shift is their own */
  const float *theta[MPTL_MAX_PARAMS]; /* rounded parameters; the master for buffers (running statistics, updated in training) */
  mptl_rounding weights;               /* how to round the first parameter, if the operator does that: see rounds_weights */
  float *buffers[MPTL_MAX_PARAMS];     /* writable, for buffers only */
  float *dtheta[MPTL_MAX_PARAMS];      /* backward: unrounded gradients of the parameters */

  const int32_t *labels; /* nll_loss: the valid samples' are in range */
  int n_valid;           /* samples of the batch that count (evaluation of a last, smaller batch) */
  mptl_loss *loss;       /* nll_loss: set by forward */
} mptl_call;

/* Elements of a value of the call's batch. */
static inline size_t mptl_batch_numel(const mptl_call *call, int value) {
  return mptl_shape_numel(call->graph->values[value].shape) * (size_t)call->batch;
}

/* A failure's message, beginning with the operator. */
static inline mptl_status mptl_in_operator(mptl_status status, const mptl_op *op) {
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "%s (%s)", op->name, op->kind->name);
}

/* Operators that run as one: a single operator of any kind, or pointwise ones of which each but the last has one consumer, a later one
 * in the stage. What passes between them is rounded and counted, but never in memory. */
typedef struct mptl_stage {
  int n;
  mptl_call **calls; /* in graph order; the last one's output is stored */
  void *scratch;     /* 64-byte aligned, shared by the stages */
} mptl_stage;

/* A trained parameter, for the update. */
typedef struct mptl_trained {
  float *p, *buf; /* master, momentum */
  const float *g; /* rounded gradient */
  size_t n;
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

  /* Operators. op_create makes what call->op needs and stores it in call->state (NULL if nothing). The shapes, batch and train of the
   * call are set, no operands yet. */
  mptl_status (*op_create)(mptl_device *device, mptl_call *call);
  void (*op_destroy)(mptl_device *device, mptl_call *call);
  size_t (*op_saved_floats)(mptl_device *device, const mptl_call *call);

  /* Optional hint before prepare: all operators in their final state, so that slow preparation can run in parallel. prepare reports
   * errors. NULL: nothing to do. */
  void (*expect)(mptl_device *device, mptl_call *const *calls, int n);

  /* Stages. prepare gets a stage ready for operands of the sizes and formats that its calls have now (addresses are not set yet), and
   * returns how much scratch memory it takes. It comes before the first run and whenever a format has changed. */
  mptl_status (*prepare)(mptl_device *device, mptl_stage *stage, size_t *scratch_bytes);

  /* Name of the way in which a matrix product of two formats is computed: see mptl_compute_name. */
  const char *(*compute)(mptl_device *device, mptl_format a, mptl_format b, int groups, mptl_compute_setting setting);

  /* How a pass (mptl_product_way) of a call of a prepared stage is computed, but for op and pass; false: there is no such product. NULL: the
   * backend reports none. */
  bool (*product)(mptl_device *device, mptl_product_way *way, const mptl_call *call, int pass);

  mptl_status (*forward)(mptl_device *device, mptl_stage *stage); /* messages begin with the operator */
  mptl_status (*backward)(mptl_device *device, mptl_stage *stage);

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
  mptl_status (*sgd)(mptl_device *device, const mptl_trained_list *list, const mptl_sgd *sgd);

  /* mptl_device_measure, of a floor that is all zeros. */
  mptl_status (*measure)(mptl_device *device, mptl_floor *floor, double seconds);
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

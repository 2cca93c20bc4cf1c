/* The program, for the files of this folder: compile.c makes it, operands.c gives its operands
 * sizes and addresses, step.c runs it, program.c is its public interface. */
#ifndef MPTL_PROGRAM_INSIDE_H
#define MPTL_PROGRAM_INSIDE_H

#include "backend/backend.h"
#include "mptl/program.h"
#include "program/lifetimes.h"
#include "program/workspace.h"

typedef struct mptl_node {
  mptl_operator is;   /* written by compile.c */
  mptl_operands on;   /* written by operands.c */
  int place;          /* among the members of its stage; written by compile.c */
  mptl_lifetime life; /* of its output and its gradient, with their places in the arena */
} mptl_node;

/* A stage. Its scratch memory holds scratch_bytes of the backend, then theta_bytes of rounded
 * parameters. */
typedef struct mptl_program_stage {
  mptl_stage run;
  int last; /* index of its last operator */
  size_t theta_bytes, scratch_bytes;
} mptl_program_stage;

/* What a step reports besides statistics. */
typedef struct mptl_step_facts {
  mptl_loss loss;
  uint32_t nonfinite; /* 1: the gradient of a parameter has an infinity or NaN */
} mptl_step_facts;

/* What a step reports, in one piece of memory that one download brings to the host. */
typedef struct mptl_record {
  mptl_step_facts *facts;
  mptl_op_stats *stats; /* by operator */
} mptl_record;

/* How a parameter and its gradient are rounded: by the operator's rounders or, with FP(e,m,auto),
 * by rounders of the parameter, since each array has its own bias shift. */
typedef struct mptl_param_rounding {
  mptl_rounder *theta, *dtheta, own[2];
  float *rounded; /* the rounded copy; NULL: operators read the master, or round it themselves */
} mptl_param_rounding;

/* Arrays that one call of the backend rounds; it has room for all parameters. */
typedef struct mptl_rounding_list {
  mptl_rounding *arrays;
  size_t count;
} mptl_rounding_list;

struct mptl_program {
  const mptl_graph *graph;
  mptl_model *model; /* NULL when only its memory is asked for */
  const mptl_assignment *assignment;
  mptl_device *device; /* the model's, without a model the options'; the program keeps it open */
  const mptl_backend *backend;
  mptl_program_options options;
  int loss;         /* index of the loss operator */
  mptl_node *nodes; /* by operator */
  int n_stages;
  mptl_program_stage *stages;
  mptl_member *members;                 /* of the stages, one stage after the other */
  mptl_block *blocks;                   /* 2 i: output of operator i; 2 i + 1: its gradient */
  int *in_place;                        /* the block whose memory a block reuses, or -1 */
  mptl_rounder (*rounders)[MPTL_ROLES]; /* for the formats that operands are laid out for */
  mptl_rounder (
      *dx_rounders)[MPTL_MAX_INPUTS]; /* of gradient parts that have a bias shift of their own */
  mptl_param_rounding *params;        /* by parameter */
  mptl_rounding_list theta, dtheta;   /* to be rounded: parameters of this stage, gradients */
  mptl_record record;  /* of this step, in the device's memory; the targets follow it */
  mptl_record fetched; /* of the last step, in the host's memory */
  mptl_op_exponents *exponents, *fetched_exponents; /* likewise; NULL until they are first wanted */
  bool want_exponents;                              /* from the next forward on */
  bool time_stages;
  bool has_exponents; /* this step counts them */
  mptl_op_cost *costs;
  double update_seconds;
  mptl_workspace *workspace;
  bool owns_workspace;
  char *arena, *scratch; /* the workspace's addresses that the operands were connected to */
  float *saved;          /* what operators save from forward to backward, then kept parameters */
  size_t kept_bytes;     /* of kept parameters */
  void *targets;         /* of the last forward, in the device's memory */
  mptl_step step;        /* this step */
  bool forward_done;
  mptl_memory_plan memory;
};

/* Makes stages, lifetimes, operators and operands of a zeroed program whose graph, assignment and
 * options are set. Allocates no memory for values. */
mptl_status mptl_program_compile(mptl_program *program);

/* Releases what mptl_program_compile made. */
void mptl_program_release(mptl_program *program);

/* Lays the program out for the assignment's formats, if one has changed: rounders, sizes, places,
 * scratch. */
mptl_status mptl_program_follow_assignment(mptl_program *program);

/* FP(e,m,auto): sets the bias shifts of a stage's results, forward or backward, before it runs.
 * Other formats have nothing to set. */
mptl_status mptl_program_fit_results(mptl_program *program, const mptl_program_stage *stage,
                                     bool forward);

/* The same for the rounder of array x of n elements. */
mptl_status mptl_program_fit_array(const mptl_program *program, mptl_rounder *rounder,
                                   const float *x, size_t n);

/* Makes this program the workspace's user, and connects its operands to the workspace's memory. */
mptl_status mptl_program_acquire(mptl_program *program);

/* Fails if another program has used the workspace since. */
mptl_status mptl_program_check_owner(const mptl_program *program, const char *what);

/* Elements of an operator's output in a batch. */
static inline size_t mptl_value_numel(const mptl_program *p, int op) {
  return mptl_shape_numel(p->graph->values[p->graph->ops[op].out].shape) * (size_t)p->options.batch;
}

/* Bytes of a parameter's rounded copy. */
static inline size_t mptl_theta_bytes(const mptl_param *param) {
  return mptl_aligned(param->numel * sizeof(float));
}

/* Whether a parameter's rounded copy is kept from forward to backward, in training on GPUs: vectors
 * by channel. They are many and small, so that a launch for each costs more than their memory. */
static inline bool mptl_is_kept(const mptl_program *p, const mptl_param *param) {
  return p->options.train && !p->backend->is_host && !param->buffer && param->ndim == 1;
}

/* Whether the operator itself rounds a parameter. */
static inline bool mptl_is_weights(const mptl_program *p, const mptl_param *param) {
  return p->backend->rounds_weights && !param->buffer && param->ndim > 1;
}

/* Numbers of a sample's targets, and the bytes of a batch's. */
static inline size_t mptl_target_count(const mptl_program *p) {
  return p->options.targets == MPTL_LABELS
             ? 1
             : mptl_shape_numel(mptl_input_shape(p->graph, &p->graph->ops[p->graph->loss], 0));
}
static inline size_t mptl_target_bytes(const mptl_program *p) {
  return (size_t)p->options.batch * mptl_target_count(p) * sizeof(float); /* labels are as large */
}

/* Bytes of the record. */
static inline size_t mptl_record_bytes(const mptl_program *p) {
  return sizeof(mptl_step_facts) + (size_t)p->graph->n_ops * sizeof(mptl_op_stats);
}

/* A tensor's number in mptl_destination. */
static inline int mptl_tensor_of(int op, mptl_role role) { return op * MPTL_ROLES + (int)role; }

/* Bytes that an operator saves from forward to backward, beside its output. */
static inline size_t mptl_saved_bytes(const mptl_graph *graph, const mptl_op *op) {
  int n = op->kind->saved_by_channel;
  return n > 0 ? mptl_aligned((size_t)n * (size_t)mptl_input_layout(graph, op, 0).c * sizeof(float))
               : 0;
}

/* Offset in a stage's scratch memory of the batch's images, on devices that need a copy. Only the
 * first stage reads it. */
static inline size_t mptl_images_offset(const mptl_program_stage *s) {
  return s->theta_bytes + mptl_aligned(s->scratch_bytes);
}

/* Addresses of an operator's output and of its gradient, which must be stored: life.stage == op. */
static inline void *mptl_value_data(const mptl_program *p, int op) {
  return p->arena + p->nodes[op].life.value.offset;
}
static inline void *mptl_gradient_data(const mptl_program *p, int op) {
  return p->arena + p->nodes[op].life.gradient.offset;
}

#endif

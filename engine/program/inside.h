/* A program from the inside, for the files of this folder: compile.c makes it, layout.c gives its operands sizes and places, step.c runs it,
 * program.c is what the public sees. */
#ifndef MPTL_PROGRAM_INSIDE_H
#define MPTL_PROGRAM_INSIDE_H

#include "backend/backend.h"
#include "mptl/program.h"
#include "program/lifetimes.h"
#include "program/workspace.h"

typedef struct mptl_node {
  mptl_operator is;   /* compile.c's */
  mptl_operands on;   /* layout.c's */
  mptl_lifetime life; /* with the places of its output and its gradient in the arena */
} mptl_node;

/* A stage, and what of the scratch memory it takes: first the backend's own, then the rounded copies of its parameters. */
typedef struct mptl_program_stage {
  mptl_stage run;
  int last; /* its last operator */
  size_t theta_bytes, scratch_bytes;
} mptl_program_stage;

/* What a step tells besides statistics. */
typedef struct mptl_step_facts {
  mptl_loss loss;
  uint32_t nonfinite; /* 1: the gradient of a parameter holds an infinity or NaN */
} mptl_step_facts;

/* A record of a step, in one piece of memory. */
typedef struct mptl_record {
  mptl_step_facts *facts;
  mptl_op_stats *stats; /* by operator */
} mptl_record;

/* How a parameter and its gradient are rounded: by the operator's rounders or, where bias shifts come from the values, its own. */
typedef struct mptl_param_rounding {
  mptl_rounder *theta, *dtheta, own[2];
  float *rounded; /* where the rounded copy goes; NULL: the master itself computes, or the operator rounds it */
} mptl_param_rounding;

/* Arrays to be rounded in one call of the backend; there is room for all parameters. */
typedef struct mptl_rounding_list {
  mptl_rounding *arrays;
  size_t count;
} mptl_rounding_list;

struct mptl_program {
  const mptl_graph *graph;
  mptl_model *model; /* NULL when only its memory is asked for */
  const mptl_assignment *assignment;
  mptl_device *device; /* the model's, or that of the options; kept open */
  const mptl_backend *backend;
  mptl_program_options options;
  int loss;         /* the graph's */
  mptl_node *nodes; /* by operator */
  int n_stages;
  mptl_program_stage *stages;
  mptl_member *members;                         /* of the stages, stage after stage */
  mptl_block *blocks;                           /* value and gradient of each operator, for placing them */
  int *in_place;                                /* the block that a block shares its place with, or -1 */
  mptl_rounder (*rounders)[MPTL_ROLES];         /* of the formats that it is laid out for */
  mptl_rounder (*dx_rounders)[MPTL_MAX_INPUTS]; /* of what is sent to an input, where that has a bias shift of its own */
  mptl_param_rounding *params;                  /* by parameter */
  mptl_rounding_list theta, dtheta;             /* parameters of the stage under way, gradients of parameters */
  mptl_record record;                           /* of the step under way, in the device's memory, with the targets behind it */
  mptl_record fetched;                          /* of the last step, the host's copy */
  mptl_op_exponents *exponents, *fetched_exponents; /* likewise; NULL until they are first wanted */
  bool want_exponents;                              /* from the next forward on */
  bool time_stages;
  bool has_exponents; /* the step under way counts them */
  mptl_op_cost *costs;
  double update_seconds;
  mptl_workspace *workspace;
  bool owns_workspace;
  char *arena, *scratch; /* the workspace's, as they were when the operands were connected */
  float *saved;          /* what operators keep from forward to backward beside their values, then the parameters that are kept */
  size_t kept_bytes;     /* of these */
  void *targets;         /* of the last forward, for a batch; the device's */
  mptl_step step;        /* the step under way */
  bool forward_done;
  mptl_memory_plan memory;
};

/* Fills in a zeroed program whose graph, assignment and options are set: stages, lifetimes, operators, layout. No memory for values yet. */
mptl_status mptl_program_compile(mptl_program *program);

/* Releases what mptl_program_compile made. */
void mptl_program_release(mptl_program *program);

/* Takes over the assignment's formats: rounders, the sizes of values, their places, scratch. Nothing happens when none has changed. */
mptl_status mptl_program_follow_assignment(mptl_program *program);

/* FP(e,m,auto): fits the rounders of a stage's results in a direction, before it runs. Nothing happens where there are no such formats. */
mptl_status mptl_program_fit_results(mptl_program *program, const mptl_program_stage *stage, bool forward);

/* The same for a rounder of an array. */
mptl_status mptl_program_fit_array(const mptl_program *program, mptl_rounder *rounder, const float *x, size_t n);

/* Makes the workspace this program's and points the operands into it. */
mptl_status mptl_program_acquire(mptl_program *program);

/* Fails when another program has used the workspace since. */
mptl_status mptl_program_check_owner(const mptl_program *program, const char *what);

/* Elements of an operator's output in a batch. */
static inline size_t mptl_value_numel(const mptl_program *p, int op) {
  return mptl_shape_numel(p->graph->values[p->graph->ops[op].out].shape) * (size_t)p->options.batch;
}

/* Bytes that a parameter's rounded copy takes. */
static inline size_t mptl_theta_bytes(const mptl_param *param) { return mptl_aligned(param->numel * sizeof(float)); }

/* Whether a parameter's rounded copy is kept from forward to backward: a vector by channel, in training, on devices that are given
 * launches. Vectors are many and small. */
static inline bool mptl_is_kept(const mptl_program *p, const mptl_param *param) {
  return p->options.train && !p->backend->is_host && !param->buffer && param->ndim == 1;
}

/* Whether the operator rounds a parameter itself. */
static inline bool mptl_is_weights(const mptl_program *p, const mptl_param *param) {
  return p->backend->rounds_weights && !param->buffer && param->ndim > 1;
}

/* Numbers of a sample's targets, and the bytes of a batch's. */
static inline size_t mptl_target_count(const mptl_program *p) {
  return p->options.targets == MPTL_LABELS ? 1 : mptl_shape_numel(mptl_input_shape(p->graph, &p->graph->ops[p->graph->loss], 0));
}
static inline size_t mptl_target_bytes(const mptl_program *p) {
  return (size_t)p->options.batch * mptl_target_count(p) * sizeof(float); /* labels are as large */
}

/* Bytes of the record that come to the host. */
static inline size_t mptl_record_bytes(const mptl_program *p) {
  return sizeof(mptl_step_facts) + (size_t)p->graph->n_ops * sizeof(mptl_op_stats);
}

/* A tensor's number: see mptl_destination. */
static inline int mptl_tensor_of(int op, mptl_role role) { return op * MPTL_ROLES + (int)role; }

/* Bytes of what an operator keeps from forward to backward beside its output. */
static inline size_t mptl_saved_bytes(const mptl_graph *graph, const mptl_op *op) {
  int n = op->kind->saved_by_channel;
  return n > 0 ? mptl_aligned((size_t)n * (size_t)mptl_input_layout(graph, op, 0).c * sizeof(float)) : 0;
}

/* Where in a stage's scratch memory the batch of images is, on devices that need a copy: only the first stage reads it. */
static inline size_t mptl_images_offset(const mptl_program_stage *s) { return s->theta_bytes + mptl_aligned(s->scratch_bytes); }

/* Where the value and its gradient are; both stored (life.stage is the operator itself). */
static inline void *mptl_value_data(const mptl_program *p, int op) { return p->arena + p->nodes[op].life.value.offset; }
static inline void *mptl_gradient_data(const mptl_program *p, int op) { return p->arena + p->nodes[op].life.gradient.offset; }

#endif

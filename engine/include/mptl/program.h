/* Programs: a graph, a model's parameters and an assignment, compiled for a batch size and a device.
 *
 * A step is forward, backward and update as method.md 3 and 5 have them: parameters rounded from binary32 masters, outputs
 * rounded when produced, gradients rounded by each consumer and summed in binary32, parameter gradients rounded when
 * complete. Several programs (a last, smaller batch; evaluation; evaluation in fp32) share one model and one assignment.
 */
#ifndef MPTL_PROGRAM_H
#define MPTL_PROGRAM_H

#include "kernels/exponents.h"
#include "kernels/losses.h"
#include "mptl/device.h"
#include "mptl/graph.h"
#include "mptl/optimizer.h"
#include "mptl/plan.h"
#include "mptl/tensor.h"

/* ---- Model: what training changes ---- */

typedef struct mptl_model {
  const mptl_graph *graph; /* borrowed: must outlive the model */
  mptl_device *device;     /* in whose memory the tensors are */
  mptl_tensor **params;    /* by parameter index: binary32 master, or buffer; PyTorch's layout */
  mptl_tensor **grads; /* trained ones: rounded gradient of the last backward, still multiplied by the loss scale; else NULL */
  const mptl_optimizer *optimizer;
  mptl_tensor **states[MPTL_MAX_STATES]; /* trained ones: the optimizer's state; else NULL */
  int *groups;                           /* trained ones: the parameter group, from 0 */
  struct mptl_trained_list *trained;     /* the device's list of the trained ones; NULL before there are gradients */
  int64_t updates;                       /* updates applied so far */
  double gradient_norm;                  /* Euclidean, of all parameters, found by the last update that clips; 0 before */
} mptl_model;

typedef struct mptl_model_options {
  uint64_t seed;
  mptl_device *device;
  const mptl_optimizer *optimizer; /* NULL: SGD */
} mptl_model_options;

/* Parameters drawn as the graph's inits say, from the seed and the parameter's index alone, the same on every device. All of them are in
 * parameter group 0. */
MPTL_API mptl_status mptl_model_create(mptl_model **model, const mptl_graph *graph, const mptl_model_options *options);
MPTL_API void mptl_model_destroy(mptl_model *model);

/* Puts a parameter, by index, into another group: 0 to MPTL_PARAMETER_GROUPS - 1. Before the first training program is made. */
MPTL_API mptl_status mptl_model_set_group(mptl_model *model, int param, int group);

/* ---- Program ---- */

typedef struct mptl_program mptl_program;

/* How values are kept: as their format's codes, in one or two bytes (binary32 beyond 16 bits), or all in binary32. Both give the same
 * numbers, bit for bit, while no gradient overflows and no NaN comes up; a step in which that happens is not applied. */
typedef enum mptl_value_storage { MPTL_PACKED, MPTL_EMULATED } mptl_value_storage;

/* Memory of programs that never run at the same time: outputs, gradients, scratch. As large as the largest of them needs. A program's
 * backward and mptl_program_read must come before another program's forward. */
typedef struct mptl_workspace mptl_workspace;

MPTL_API mptl_status mptl_workspace_create(mptl_workspace **workspace, mptl_device *device);
MPTL_API void mptl_workspace_destroy(mptl_workspace *workspace); /* after the programs that use it; NULL is allowed */

/* What matrix products are computed in; the products are the same (but see tf32), they are added in binary32 (but see fp8). */
typedef enum mptl_compute_setting {
  MPTL_COMPUTE_AUTO,     /* bf16 units where they are exact and faster */
  MPTL_COMPUTE_BINARY32, /* never in less than binary32 */
  MPTL_COMPUTE_NARROW, /* bf16 units wherever they are exact (mptl_bf16_products), even where several products for one are slower */
  MPTL_COMPUTE_FP8, /* as auto, and 8-bit tensor cores for fp8_e4m3fn and fp8_e5m2 wherever there are any: before compute capability 10.0
                       they add in fewer bits than binary32 has */
  MPTL_COMPUTE_TF32, /* as auto, and TF32 units of GPUs for whatever would be in binary32: they take 11 significant bits of its numbers, so the
                        products are not the same */
} mptl_compute_setting;

/* What a batch's targets are: a label for each sample, or a number for each of its outputs. */
typedef enum mptl_target_type { MPTL_LABELS, MPTL_VALUES } mptl_target_type;

typedef struct mptl_program_options {
  int batch;           /* samples a step */
  bool train;          /* with backward; batch norm by batch statistics. Else by running statistics. */
  bool input_gradient; /* also compute the gradient of the network's input */
  mptl_compute_setting compute;
  bool keep_all; /* give every output and gradient memory of its own, so that mptl_program_read sees it */
  mptl_value_storage storage;
  mptl_target_type targets;        /* what the samples' targets are */
  mptl_rounding_mode rounding;     /* of every tensor */
  uint64_t seed;                   /* of stochastic rounding and dropout */
  mptl_workspace *workspace;       /* shared with other programs on the device, borrowed; NULL: one of its own */
  mptl_device *device;             /* for mptl_predict_memory, NULL: the CPU; a program runs on its model's */
  const mptl_optimizer *optimizer; /* likewise; NULL: SGD */
} mptl_program_options;

/* The graph must have a loss. The assignment is read at every step, so that promotions are seen at once. Model and
 * assignment are borrowed and must outlive the program. */
MPTL_API mptl_status mptl_program_create(mptl_program **program, mptl_model *model, const mptl_assignment *assignment,
                                         const mptl_program_options *options);
MPTL_API void mptl_program_destroy(mptl_program *program);

typedef struct mptl_result {
  double loss;  /* sum of the samples' losses (rounded, as the assignment says) */
  int correct;  /* samples whose largest output is their label's, or where their largest target is; -1: not counted, as
                 * values of a regression are neither right nor wrong (kernels/losses.h) */
  int count;    /* samples */
  bool applied; /* mptl_program_step: the update was made (gradients were finite) */
} mptl_result;

/* Forward on n samples: images in NHWC, targets as the program's options say: labels in 0 .. outputs - 1, or as many values for each sample
 * as the loss's input has, in its order. A training program takes exactly its batch, an evaluating one
 * at most that. step numbers the random bits of stochastic rounding and dropout. */
MPTL_API mptl_status mptl_program_forward(mptl_program *program, const float *images, const mptl_targets *targets, int n,
                                          uint32_t step, mptl_result *result);

/* Backward of the last forward: the gradient of loss_scale * mean loss, into the model's grads. *finite is false when a
 * gradient overflowed or held inf or NaN. */
MPTL_API mptl_status mptl_program_backward(mptl_program *program, double loss_scale, bool *finite);

typedef struct mptl_update {
  int n_groups; /* parameter groups that have settings; at least as many as the model has */
  double settings[MPTL_PARAMETER_GROUPS][MPTL_MAX_SETTINGS]; /* of the model's optimizer, in the order of its row */
  double loss_scale;                                         /* 1: none */
  double clip_norm;    /* gradients whose Euclidean norm, of all parameters together, is larger are scaled down to it; 0: not */
  bool skip_nonfinite; /* no update when a gradient is not finite (dynamic loss scaling) */
} mptl_update;

/* The usual settings of an optimizer, in one group; loss_scale 1. */
MPTL_API mptl_update mptl_update_default(const mptl_optimizer *optimizer);

/* Updates the masters (method.md 5), by the model's optimizer. */
MPTL_API mptl_status mptl_model_update(mptl_model *model, const mptl_update *update);

/* Forward, backward and update. */
MPTL_API mptl_status mptl_program_step(mptl_program *program, const float *images, const mptl_targets *targets, int n,
                                       uint32_t step, const mptl_update *update, mptl_result *result);

/* Operators run in stages: pointwise ones together with the pointwise consumer of their output (batch norm, add, ReLU). The operator with
 * which an operator's stage ends. */
MPTL_API int mptl_program_stage_of(const mptl_program *program, int op);

/* What a stage took in the last step, at the operator it ends with: seconds, forward with the rounding of its parameters, backward with
 * that of their gradients. And the bytes that it has to move at least: each operand in memory read once, each result written once. */
typedef struct mptl_op_cost {
  double forward, backward;
  size_t forward_bytes, backward_bytes;
} mptl_op_cost;

/* By operator: an array of the graph's n_ops, owned by the program, 0 but for stages' ends. */
MPTL_API const mptl_op_cost *mptl_program_costs(const mptl_program *program);

/* Whether the host waits for each stage, from the next forward on. Without that a device other than the CPU is still at work when the
 * host comes to the next stage, and seconds are 0 in the costs. */
MPTL_API void mptl_program_time_stages(mptl_program *program, bool on);

/* Seconds that the last step's update took; 0 if there was none. */
MPTL_API double mptl_program_update_seconds(const mptl_program *program);

/* Statistics of the last step, by operator: an array of the graph's n_ops, owned by the program. */
MPTL_API const mptl_op_stats *mptl_program_stats(const mptl_program *program);

/* The bias shifts that the last step gave a tensor in FP(e,m,auto): one for an output, one for each parameter of the operator or its
 * gradient, and one for each consumer that sends a gradient, in graph order. Returns how many there are, 0 for other formats; sets the
 * first `most` of them. */
MPTL_API int mptl_program_shifts(const mptl_program *program, int op, mptl_role role, int *shifts, int most);

/* Whether the steps from the next forward on count the exponents of what they round (kernels/exponents.h): a pass more over each tile,
 * and the same results. MPTL_ENOMEM: there is no memory for the counts. */
MPTL_API mptl_status mptl_program_count_exponents(mptl_program *program, bool on);

typedef mptl_exponents mptl_op_exponents[MPTL_ROLES];

/* The counts of the last step, by operator: an array of the graph's n_ops, owned by the program; NULL if it did not count. Each tensor's
 * are of its values as they come to be rounded: of theta, the masters; of a gradient with several consumers, all contributions. */
MPTL_API const mptl_op_exponents *mptl_program_exponents(const mptl_program *program);

/* The last forward's rounded output of an operator (or, with gradient, the last backward's gradient of it), copied into out: batch x
 * shape in NHWC. Without keep_all only the last two operators' outputs and the input's gradient can be read, the others are not kept. */
MPTL_API mptl_status mptl_program_read(mptl_program *program, int op, bool gradient, float *out);

/* ---- Compute ---- */

/* What a matrix product of values of these formats, in so many groups (a convolution's; else 1), is computed in on a device: "f32", "bf16",
 * on GPUs "tf32" and "fp8" (the codes of fp8_e4m3fn and fp8_e5m2, where the library has that for the shape, else "bf16"),
 * or "2xbf16" and "4xbf16" where numbers of more than 8 significant bits are split in two. FP(e,m,auto): with the shifts for values of
 * magnitude 1. */
MPTL_API const char *mptl_compute_name(mptl_device *device, mptl_format a, mptl_format b, int groups,
                                       mptl_compute_setting setting);

/* Its settings' names in the order of mptl_compute_setting: "auto", "f32", "narrow", "fp8", "tf32"; NULL beyond the end. */
MPTL_API const char *mptl_compute_setting_name(size_t index);

/* How a device's library computes a pass of an operator's matrix product. */
typedef struct mptl_product_way {
  int op, pass;    /* 0: forward, 1: the gradient of the input, 2: that of the weights */
  char type[24];   /* what it multiplies: "bf16", "e5m2 by e4m3" */
  char engine[64]; /* which of the library's ways: "cuDNN engine 28" */
  size_t workspace_bytes;
} mptl_product_way;

/* The ways of all products, for the formats of the last step (or of creation), by operator and pass; at most three for each of the graph's
 * operators. Returns how many. None where the device does not tell, as the CPU does not. */
MPTL_API int mptl_program_products(mptl_product_way *ways, const mptl_program *program);

/* The same of a program that is not made: see mptl_predict_memory. */
MPTL_API mptl_status mptl_predict_products(mptl_product_way *ways, int *count, const mptl_assignment *assignment,
                                           const mptl_program_options *options);

/* ---- Memory ---- */

typedef struct mptl_memory_plan {
  size_t images;     /* the batch that a step reads: the caller's */
  size_t parameters; /* masters, buffers, optimizer state, gradients */
  size_t state;      /* what operators keep beside their outputs: statistics of batch normalisation */
  size_t record;     /* what a step reports: its loss, the statistics of each tensor; and its targets */
  size_t arena;      /* outputs, gradients of outputs, by lifetime */
  size_t saved;      /* of arena and state: what lives from forward to backward */
  size_t scratch;    /* of the stage that needs most: rounded parameters, operands and results of matrix products */
  size_t total;
} mptl_memory_plan;

MPTL_API mptl_memory_plan mptl_program_memory(const mptl_program *program);

/* What a training program for the assignment and its batch takes, without allocating it. */
MPTL_API mptl_status mptl_predict_memory(mptl_memory_plan *memory, const mptl_assignment *assignment,
                                         const mptl_program_options *options);

/* Bytes the engine holds now, on the host and on devices, and the most it has held since the start or the last reset. */
MPTL_API size_t mptl_memory_current(void);
MPTL_API size_t mptl_memory_peak(void);
MPTL_API void mptl_memory_reset_peak(void);

#endif

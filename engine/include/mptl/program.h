/* Programs: a graph, a model and an assignment, compiled for a batch size and a device.
 *
 * A step is forward, backward and update (method.md 3 and 5). Parameters are rounded from their
 * binary32 masters, outputs when they are computed. Each consumer of a value rounds the gradient
 * that it sends; the sum of several is kept in binary32. Gradients of parameters are rounded when
 * they are complete. Several programs can share a model: for training, for a smaller last batch,
 * for tests, for tests in fp32.
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
  const mptl_graph *graph; /* borrowed: must live longer than the model */
  mptl_device *device;     /* the tensors are in its memory */
  mptl_tensor **params;    /* by parameter index: binary32 master, or buffer; in PyTorch's order */

  /* Gradients by parameter index: rounded, of the last backward, still multiplied by the loss
   * scale. NULL for buffers, and before the first training program is made. */
  mptl_tensor **grads;
  const mptl_optimizer *optimizer;

  mptl_tensor *
      *states[MPTL_MAX_STATES]; /* the optimizer's state by parameter index; NULL like grads */

  int *groups; /* parameter groups by parameter index, from 0 */

  /* the device's list of trained parameters; NULL before there are gradients */
  struct mptl_trained_list *trained;

  int64_t updates;      /* how many were made */
  double gradient_norm; /* Euclidean norm of all gradients in the last clipping update; 0 before */
} mptl_model;

typedef struct mptl_model_options {
  uint64_t seed;
  mptl_device *device;
  const mptl_optimizer *optimizer; /* NULL: SGD */
} mptl_model_options;

/* Creates a model, with all parameters in parameter group 0. Initial values are functions of the
 * graph's inits, the seed and the parameter's index: the same on every device. */
MPTL_API mptl_status mptl_model_create(mptl_model **model, const mptl_graph *graph,
                                       const mptl_model_options *options);
MPTL_API void mptl_model_destroy(mptl_model *model);

/* Puts a parameter, by index, into another parameter group: 0 to MPTL_PARAMETER_GROUPS - 1. Fails
 * with MPTL_EINVAL if a training program has been made. */
MPTL_API mptl_status mptl_model_set_group(mptl_model *model, int param, int group);

/* ---- Program ---- */

typedef struct mptl_program mptl_program;

/* How values are stored. packed: as codes of their format, in one or two bytes; in binary32 if the
 * format has more than 16 bits. emulated: always in binary32. Both give the same numbers, bit for
 * bit, in a step that is finite (method.md 3.5). */
typedef enum mptl_value_storage { MPTL_PACKED, MPTL_EMULATED } mptl_value_storage;

/* Memory that programs share which never run at the same time: arena and scratch memory, as large
 * as the largest program needs. Forward of one program ends the lifetime of the values of another:
 * call its mptl_program_backward and mptl_program_read before. */
typedef struct mptl_workspace mptl_workspace;

MPTL_API mptl_status mptl_workspace_create(mptl_workspace **workspace, mptl_device *device);

/* Call it after the programs that use the workspace are destroyed. NULL is allowed. */
MPTL_API void mptl_workspace_destroy(mptl_workspace *workspace);

/* The types in which matrix products are computed. Products are exact, except under tf32, and are
 * added in binary32, except under fp8. */
typedef enum mptl_compute_setting {
  MPTL_COMPUTE_AUTO,     /* bf16 units where they are exact and faster */
  MPTL_COMPUTE_BINARY32, /* only binary32 */

  /* bf16 units wherever they are exact (mptl_bf16_products), even if several products for one are
   * slower */
  MPTL_COMPUTE_NARROW,

  /* auto, and 8-bit tensor cores for fp8_e4m3fn and fp8_e5m2 where the device has them. Before
   * compute capability 10.0 they add with fewer bits than binary32. */
  MPTL_COMPUTE_FP8,

  /* auto, and on GPUs TF32 units instead of binary32. They use only 11 significant bits of each
   * operand. */
  MPTL_COMPUTE_TF32,

  MPTL_COMPUTE_ONEDNN, /* auto; on CPUs oneDNN multiplies */
} mptl_compute_setting;

/* The targets of a batch: a label for each sample, or a value for each element of the loss's
 * input. */
typedef enum mptl_target_type { MPTL_LABELS, MPTL_VALUES } mptl_target_type;

typedef struct mptl_program_options {
  int batch;  /* batch size */
  bool train; /* with backward; batch norms use batch statistics, else running statistics */
  bool input_gradient; /* backward computes the gradient of the network's input, too */
  mptl_compute_setting compute;
  bool keep_all; /* keep every output and gradient in its own memory, for mptl_program_read */
  mptl_value_storage storage;
  mptl_target_type targets;
  mptl_rounding_mode rounding; /* of all tensors */
  uint64_t seed;               /* of stochastic rounding and dropout */
  mptl_workspace *workspace;   /* borrowed; NULL: the program makes one for itself */

  /* For predictions only: a program has the device and the optimizer of its model. NULL: the CPU,
   * SGD. */
  mptl_device *device;
  const mptl_optimizer *optimizer;
} mptl_program_options;

/* Creates a program. The graph must have a loss. Each forward reads the assignment, so a promotion
 * takes effect in the next step. Model and assignment are borrowed: they must live longer than the
 * program. */
MPTL_API mptl_status mptl_program_create(mptl_program **program, mptl_model *model,
                                         const mptl_assignment *assignment,
                                         const mptl_program_options *options);
MPTL_API void mptl_program_destroy(mptl_program *program);

typedef struct mptl_result {
  double loss; /* sum of the samples' losses, each rounded as the assignment says */
  /* correct samples (mptl_loss in kernels/losses.h); -1: the loss does not count them */
  int correct;
  int count;    /* samples */
  bool applied; /* by mptl_program_step: the update was made */
} mptl_result;

/* Runs forward on n samples: images in NHWC; labels, or values in PyTorch's order of the loss's
 * input. n is the batch size, or in a program without train 1 to the batch size. step is the number
 * that selects the random bits of stochastic rounding and dropout (method.md 5.6). Fails with
 * MPTL_EINVAL if n or a label is not accepted. */
MPTL_API mptl_status mptl_program_forward(mptl_program *program, const float *images,
                                          const mptl_targets *targets, int n, uint32_t step,
                                          mptl_result *result);

/* Runs backward after the last forward, once: computes the gradients of loss_scale times the mean
 * loss, in the model's grads. *finite: whether the step is finite (method.md 3.5). */
MPTL_API mptl_status mptl_program_backward(mptl_program *program, double loss_scale, bool *finite);

typedef struct mptl_update {
  int n_groups; /* parameter groups with settings; at least as many as the model uses */

  /* The settings of each parameter group, in the order of the optimizer's row. */
  double settings[MPTL_PARAMETER_GROUPS][MPTL_MAX_SETTINGS];

  double loss_scale; /* what the gradients are divided by; 1: no loss scaling */
  double clip_norm;  /* Euclidean norm of all gradients to which they are clipped; 0: no clipping */
  bool skip_nonfinite; /* mptl_program_step skips a step that is not finite */
} mptl_update;

/* The default settings of an optimizer, in one parameter group, with loss scale 1 and without
 * clipping. */
MPTL_API mptl_update mptl_update_default(const mptl_optimizer *optimizer);

/* Updates the masters and the optimizer state from the gradients (method.md 5.2). Fails with
 * MPTL_EINVAL if the model has no gradients, or a setting is not accepted. */
MPTL_API mptl_status mptl_model_update(mptl_model *model, const mptl_update *update);

/* A training step: forward, backward and, unless the step is skipped, update. */
MPTL_API mptl_status mptl_program_step(mptl_program *program, const float *images,
                                       const mptl_targets *targets, int n, uint32_t step,
                                       const mptl_update *update, mptl_result *result);

/* The last operator of an operator's stage. Pointwise operators run in the stage of their consumer,
 * if it is pointwise too: batch norm, add and ReLU are one stage. */
MPTL_API int mptl_program_stage_of(const mptl_program *program, int op);

/* The costs of a stage in the last step, at the stage's last operator. */
typedef struct mptl_op_cost {
  double forward, backward; /* seconds, with the rounding of parameters and their gradients */

  /* Bytes that the stage has to move at least: each operand in memory read once, each result
   * written once. */
  size_t forward_bytes, backward_bytes;
} mptl_op_cost;

/* Costs by operator: an array of the graph's n_ops, owned by the program; 0 except at the last
 * operators of stages. */
MPTL_API const mptl_op_cost *mptl_program_costs(const mptl_program *program);

/* Sets whether the host waits for the device after each stage, to time it, from the next forward
 * on. Without waiting, the seconds in a GPU's costs are 0. */
MPTL_API void mptl_program_time_stages(mptl_program *program, bool on);

/* The seconds of the last step's update; 0 if it made none, or on a GPU if stages are not timed. */
MPTL_API double mptl_program_update_seconds(const mptl_program *program);

/* The statistics of the last step, by operator: an array of the graph's n_ops, owned by the
 * program. */
MPTL_API const mptl_op_stats *mptl_program_stats(const mptl_program *program);

/* Copies the first `most` bias shifts of a tensor in FP(e,m,auto), as the last step set them, to
 * shifts. An output has one; theta and dtheta have one for each parameter; dv has one for each
 * consumer that sends a gradient, in graph order. Returns how many the tensor has: 0 in other
 * formats. */
MPTL_API int mptl_program_shifts(const mptl_program *program, int op, mptl_role role, int *shifts,
                                 int most);

/* Sets whether steps count the exponents of the values that they round (kernels/exponents.h), from
 * the next forward on. Counting takes one more traversal of each tile and does not change results.
 * Fails with MPTL_ENOMEM. */
MPTL_API mptl_status mptl_program_count_exponents(mptl_program *program, bool on);

typedef mptl_exponents mptl_op_exponents[MPTL_ROLES];

/* The exponent counts of the last step, by operator: an array of the graph's n_ops, owned by the
 * program; NULL if the step did not count. Values are counted before they are rounded: for theta
 * the masters, for a gradient with several consumers all contributions. */
MPTL_API const mptl_op_exponents *mptl_program_exponents(const mptl_program *program);

/* Copies the rounded output of an operator in the last forward, or with gradient the gradient of
 * that output in the last backward, to out: the batch size times the shape, in NHWC. Without
 * keep_all, only the graph's outputs (mptl_graph_is_output) and the gradient of the network's input
 * are kept. Fails with MPTL_EINVAL if the value is not kept, or another program has used the
 * workspace. */
MPTL_API mptl_status mptl_program_read(mptl_program *program, int op, bool gradient, float *out);

/* ---- Compute ---- */

/* The type in which a device computes a matrix product of two formats. channel_groups: of a
 * convolution; else 1. parameters: how many numbers the operator trains; with few of them, CPUs
 * compute in binary32, which is faster. "f32" or "bf16"; on GPUs also "tf32" and "fp8", the codes
 * of fp8_e4m3fn and fp8_e5m2 (if the library cannot do that for a shape, it gets "bf16"); on CPUs
 * also "2xbf16" and "4xbf16", where numbers of more than 8 significant bits are the sum of two bf16
 * numbers. FP(e,m,auto) has the shift for values of magnitude 1. */
MPTL_API const char *mptl_compute_name(mptl_device *device, mptl_format a, mptl_format b,
                                       int channel_groups, size_t parameters,
                                       mptl_compute_setting setting);

/* The name of a mptl_compute_setting: "auto", "f32", "narrow", "fp8", "tf32", "onednn"; NULL
 * beyond the last. */
MPTL_API const char *mptl_compute_setting_name(size_t index);

/* How a device's library computes a matrix product: one pass of a GEMM operator. */
typedef struct mptl_product_way {
  int op, pass;    /* operator; 0: forward, 1: backward by data, 2: backward by weights */
  char type[24];   /* the types of its operands: "bf16", "e5m2 by e4m3" */
  char engine[64]; /* the library and its implementation: "cuDNN engine 28" */
  size_t workspace_bytes;
} mptl_product_way;

/* Sets ways to how all products are computed, in the formats of the last step (or of creation), by
 * operator and pass: at most three for each of the graph's operators. Returns how many there are: 0
 * on devices that do not report it, as the CPU. */
MPTL_API int mptl_program_products(mptl_product_way *ways, const mptl_program *program);

/* The same for a program that is not created: see mptl_predict_memory. */
MPTL_API mptl_status mptl_predict_products(mptl_product_way *ways, int *count,
                                           const mptl_assignment *assignment,
                                           const mptl_program_options *options);

/* ---- Memory ---- */

/* The memory of a program and its model, in bytes. */
typedef struct mptl_memory_plan {
  size_t images;     /* a batch of images: the caller's memory */
  size_t parameters; /* masters, buffers, optimizer state, gradients */
  size_t state;      /* what is saved beside outputs: batch statistics, kept parameters */
  size_t record;     /* the record of a step, and its targets */
  size_t arena;      /* outputs and their gradients, by lifetime */
  size_t saved;      /* the part of arena and state that lives from forward to backward */
  size_t scratch; /* largest of all stages: rounded parameters, operands and results of products */
  size_t total;
} mptl_memory_plan;

MPTL_API mptl_memory_plan mptl_program_memory(const mptl_program *program);

/* Predicts the memory of a program with these options, without allocating it. */
MPTL_API mptl_status mptl_predict_memory(mptl_memory_plan *memory,
                                         const mptl_assignment *assignment,
                                         const mptl_program_options *options);

/* The bytes that the engine holds now, on the host and on devices, and its peak memory: the most
 * since the start or the last reset. */
MPTL_API size_t mptl_memory_current(void);
MPTL_API size_t mptl_memory_peak(void);
MPTL_API void mptl_memory_reset_peak(void);

#endif

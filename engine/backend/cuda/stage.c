/* Stages of pointwise operators: describes them for the kernels and launches them. */
#include <string.h>

#include "backend/cuda/cuda.h"
#include "kernels/pointwise.h"

#define POINTWISE_ROW(name) const mptl_cuda_row mptl_cuda_op_##name = {.pointwise = true}
POINTWISE_ROW(input);
POINTWISE_ROW(batchnorm2d);
POINTWISE_ROW(dropout);
POINTWISE_ROW(add);
POINTWISE_ROW(mul);
#define UNARY_ROW(name, NAME, traits) POINTWISE_ROW(name);
MPTL_UNARY_OPERATORS(UNARY_ROW)
#undef UNARY_ROW
#undef POINTWISE_ROW

/* c->saved: mean[c], then inverse standard deviation[c]. */
static void set_batchnorm(mptl_cuda_op *op, const mptl_call *c) {
  /* Running statistics are not updated while ranges are found. */
  bool moves = !(c->train && c->ranging);
  op->bn = (mptl_cuda_batchnorm){.gamma = c->theta[MPTL_NORM_WEIGHT],
                                 .beta = c->theta[MPTL_NORM_BIAS],
                                 .mean = c->saved,
                                 .running_mean = moves ? c->buffers[MPTL_NORM_MEAN] : NULL,
                                 .running_var = moves ? c->buffers[MPTL_NORM_VAR] : NULL,
                                 .dgamma = c->dtheta[MPTL_NORM_WEIGHT],
                                 .dbeta = c->dtheta[MPTL_NORM_BIAS],
                                 .eps = c->op->attr.eps,
                                 .momentum = c->op->attr.momentum};
  if (c->saved != NULL) op->bn.inv_std = op->bn.mean + mptl_call_output(c).c;
}

static void describe_op(mptl_cuda_op *op, const mptl_call *c) {
  *op = (mptl_cuda_op){
      .id = c->op->kind->id, .n_in = c->op->n_in, .p = c->op->attr.p, .mask = c->key};
  op->y = c->y;
  op->out = c->out;
  op->from[0] = op->from[1] = -1;
  for (int k = 0; k < c->op->n_in; k++) {
    op->from[k] = c->from[k];
    op->in[k] = c->in[k];
    op->dx[k] = c->dx[k];
  }
  if (op->id == MPTL_OP_BATCHNORM2D) set_batchnorm(op, c);
  if (op->id == MPTL_OP_INPUT) {
    op->n_in = 1;
    op->in[0] = c->in[0];
    op->valid = mptl_batch_numel(c, c->op->out) / (size_t)c->batch * (size_t)c->n_valid;
  }
}

/* Describes a stage for the kernels. calls: one for each of its n operators. */
static mptl_cuda_stage describe(mptl_cuda_op *ops, const mptl_call *calls, int n, void *scratch) {
  const mptl_call *first = &calls[0];
  for (int i = 0; i < n; i++) describe_op(&ops[i], &calls[i]);
  return (mptl_cuda_stage){.n = n,
                           .ops = ops,
                           .numel = mptl_batch_numel(first, first->op->out),
                           .c = (size_t)mptl_call_output(first).c,
                           .train = first->train,
                           .dy = calls[n - 1].dy,
                           .scratch = scratch};
}

static mptl_status check_operators(const mptl_stage *s) {
  if (s->n <= MPTL_CUDA_STAGE_OPS) return MPTL_OK;
  return mptl_fail(MPTL_EUNSUPPORTED, "%d operators in a stage, at most %d", s->n,
                   MPTL_CUDA_STAGE_OPS);
}

mptl_status mptl_cuda_prepare_stage(const mptl_stage *s, size_t *bytes) {
  mptl_call calls[MPTL_CUDA_STAGE_OPS];
  mptl_cuda_op ops[MPTL_CUDA_STAGE_OPS];
  MPTL_TRY(check_operators(s));
  for (int i = 0; i < s->n; i++) mptl_call_of(&calls[i], &s->members[i], NULL, NULL);
  mptl_cuda_stage stage = describe(ops, calls, s->n, NULL);
  *bytes = mptl_cuda_stage_scratch(&stage);
  return MPTL_OK;
}

/* While ranges are found, the other operators store nothing either. Their ranges go to the second
 * half of found, which nobody reads. */
mptl_status mptl_cuda_run_stage(mptl_cuda_device *device, const mptl_stage *s,
                                const mptl_step *step, bool forward, int ranges_of,
                                mptl_round_stats *found) {
  mptl_call calls[MPTL_CUDA_STAGE_OPS];
  mptl_cuda_op ops[MPTL_CUDA_STAGE_OPS];
  MPTL_TRY(check_operators(s));
  for (int i = 0; i < s->n; i++) {
    mptl_cuda_call_of(&calls[i], &s->members[i], step, s->scratch);
    if (ranges_of >= 0)
      mptl_cuda_find_ranges_of(&calls[i], forward,
                               i == ranges_of ? found : found + MPTL_MAX_INPUTS);
  }
  mptl_cuda_stage stage = describe(ops, calls, s->n, mptl_cuda_address(device, s->scratch));
  int error;
  mptl_cuda_enter(device);
  error = forward ? mptl_cuda_stage_forward(&stage, device->stream)
                  : mptl_cuda_stage_backward(&stage, device->stream);
  return mptl_in_operator(
      mptl_cuda_leave_call(device, error,
                           forward ? "mptl_cuda_stage_forward" : "mptl_cuda_stage_backward"),
      calls[s->n - 1].op);
}

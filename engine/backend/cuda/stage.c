/* Stages of pointwise operators: what the program says of them in the kernels' terms. */
#include <string.h>

#include "backend/cuda/cuda.h"

static const struct {
  const char *name;
  mptl_cuda_kind kind;
} kinds[] = {
    {"input", MPTL_CUDA_INPUT},     {"batchnorm2d", MPTL_CUDA_BATCHNORM}, {"relu", MPTL_CUDA_RELU}, {"relu6", MPTL_CUDA_RELU6},
    {"sigmoid", MPTL_CUDA_SIGMOID}, {"dropout", MPTL_CUDA_DROPOUT},       {"add", MPTL_CUDA_ADD},   {"mul", MPTL_CUDA_MUL}};

/* The kernels' number of a kind; -1: not pointwise. */
static int find_kind(const mptl_call *c) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i].name, c->op->kind->name) == 0) return (int)kinds[i].kind;
  return -1;
}

bool mptl_cuda_is_pointwise(const mptl_call *call) { return find_kind(call) >= 0; }

/* Saved: mean[c], inverse standard deviation[c]. */
static void set_batchnorm(mptl_cuda_op *op, const mptl_call *c) {
  const mptl_cuda_device *d = mptl_cuda_of(c);
  op->bn = (mptl_cuda_batchnorm){.gamma = mptl_cuda_address(d, c->theta[0]),
                                 .beta = mptl_cuda_address(d, c->theta[1]),
                                 .mean = mptl_cuda_address(d, c->saved),
                                 .running_mean = mptl_cuda_address(d, c->buffers[2]),
                                 .running_var = mptl_cuda_address(d, c->buffers[3]),
                                 .dgamma = mptl_cuda_address(d, c->dtheta[0]),
                                 .dbeta = mptl_cuda_address(d, c->dtheta[1]),
                                 .eps = c->op->attr.eps,
                                 .momentum = c->op->attr.momentum};
  if (c->saved != NULL) op->bn.inv_std = op->bn.mean + mptl_cuda_out_shape(c).c;
}

static void describe_op(mptl_cuda_op *op, const mptl_call *c) {
  const mptl_cuda_device *d = mptl_cuda_of(c);
  *op = (mptl_cuda_op){.kind = (mptl_cuda_kind)find_kind(c), .n_in = c->op->n_in, .p = c->op->attr.p, .mask = c->key};
  op->y = mptl_cuda_sink_of(d, &c->y);
  op->out = mptl_cuda_source_of(d, &c->out);
  op->from[0] = op->from[1] = -1;
  for (int k = 0; k < c->op->n_in; k++) {
    op->from[k] = c->from[k];
    op->in[k] = mptl_cuda_source_of(d, &c->in[k]);
    op->dx[k] = mptl_cuda_sink_of(d, &c->dx[k]);
  }
  if (op->kind == MPTL_CUDA_BATCHNORM) set_batchnorm(op, c);
  if (op->kind == MPTL_CUDA_INPUT) {
    op->n_in = 1;
    op->in[0] = mptl_cuda_source_of(d, &c->in[0]);
    op->valid = mptl_batch_numel(c, c->op->out) / (size_t)c->batch * (size_t)c->n_valid;
  }
}

static mptl_status describe(mptl_cuda_stage *stage, mptl_cuda_op *ops, const mptl_cuda_device *d, const mptl_stage *s) {
  const mptl_call *first = s->calls[0];
  if (s->n > MPTL_CUDA_STAGE_OPS)
    return mptl_fail(MPTL_EUNSUPPORTED, "%d operators in a stage, at most %d", s->n, MPTL_CUDA_STAGE_OPS);
  for (int i = 0; i < s->n; i++) describe_op(&ops[i], s->calls[i]);
  *stage = (mptl_cuda_stage){.n = s->n,
                             .ops = ops,
                             .numel = mptl_batch_numel(first, first->op->out),
                             .c = (size_t)mptl_cuda_out_shape(first).c,
                             .train = first->train,
                             .dy = mptl_cuda_source_of(d, &s->calls[s->n - 1]->dy),
                             .scratch = mptl_cuda_address(d, s->scratch)};
  return MPTL_OK;
}

mptl_status mptl_cuda_prepare_stage(mptl_cuda_device *device, mptl_stage *s, size_t *bytes) {
  mptl_cuda_op ops[MPTL_CUDA_STAGE_OPS];
  mptl_cuda_stage stage;
  MPTL_TRY(describe(&stage, ops, device, s));
  *bytes = mptl_cuda_stage_scratch(&stage);
  return MPTL_OK;
}

mptl_status mptl_cuda_run_stage(mptl_cuda_device *device, mptl_stage *s, bool forward) {
  mptl_cuda_op ops[MPTL_CUDA_STAGE_OPS];
  mptl_cuda_stage stage;
  MPTL_TRY(describe(&stage, ops, device, s));
  mptl_cuda_stream stream = device->stream;
  return mptl_in_operator(
      MPTL_CUDA_LAUNCH(device, forward ? mptl_cuda_stage_forward(&stage, stream) : mptl_cuda_stage_backward(&stage, stream)),
      s->calls[s->n - 1]->op);
}

/* Pools, concat and slice, layer norms and losses: each is one launch or a few. */
#include "backend/call_shapes.h"
#include "backend/cuda/cuda.h"

static mptl_cuda_device *device(const mptl_call *call) { return mptl_cuda_of(call); }
static mptl_cuda_stream stream(const mptl_call *call) { return mptl_cuda_stream_of(call); }

/* ---- Pools ---- */

static mptl_status avgpool_forward(const mptl_call *call) {
  mptl_pool pool = mptl_call_pool(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_avgpool_forward(&call->y, &call->in[0], &pool, stream(call)));
}

static mptl_status avgpool_backward(const mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_pool pool = mptl_call_pool(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_avgpool_backward(&call->dx[0], &call->dy, &pool, stream(call)));
}

static mptl_status maxpool_prepare(const mptl_call *call, size_t *scratch_bytes) {
  mptl_pool pool = mptl_call_pool(call);
  if (call->train) *scratch_bytes = mptl_cuda_maxpool_scratch(&pool);
  return MPTL_OK;
}

static mptl_status maxpool_forward(const mptl_call *call) {
  mptl_pool pool = mptl_call_pool(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_maxpool_forward(&call->y, &call->in[0], &pool, stream(call)));
}

static mptl_status maxpool_backward(const mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_pool pool = mptl_call_pool(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_maxpool_backward(&call->dx[0], &call->in[0], &call->dy, &pool,
                                                     call->scratch, stream(call)));
}

/* ---- Channels ---- */

static size_t pixels(const mptl_call *call) {
  mptl_shape out = mptl_call_output(call);
  return (size_t)call->batch * (size_t)out.h * (size_t)out.w;
}

static mptl_cuda_concat concat_of(const mptl_call *call) {
  mptl_cuda_concat concat = {
      .pixels = pixels(call), .n_in = call->op->n_in, .shuffle = (size_t)call->op->attr.shuffle};
  for (int k = 0; k < call->op->n_in; k++) concat.counts[k] = (size_t)mptl_call_input(call, k).c;
  return concat;
}

static mptl_status concat_forward(const mptl_call *call) {
  mptl_cuda_concat concat = concat_of(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_concat_forward(&call->y, call->in, &concat, stream(call)));
}

static mptl_status concat_backward(const mptl_call *call) {
  mptl_cuda_concat concat = concat_of(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_concat_backward(call->dx, &call->dy, &concat, stream(call)));
}

static mptl_cuda_slice slice_of(const mptl_call *call) {
  return (mptl_cuda_slice){.pixels = pixels(call),
                           .c = (size_t)mptl_call_input(call, 0).c,
                           .first = (size_t)call->op->attr.first,
                           .count = (size_t)mptl_call_output(call).c,
                           .part = call->dx[0].part};
}

static mptl_status slice_forward(const mptl_call *call) {
  mptl_cuda_slice slice = slice_of(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_slice_forward(&call->y, &call->in[0], &slice, stream(call)));
}

static mptl_status slice_backward(const mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_cuda_slice slice = slice_of(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_slice_backward(&call->dx[0], &call->dy, &slice, stream(call)));
}

/* ---- Layer norms ---- */

static mptl_cuda_layernorm layernorm_of(const mptl_call *call) {
  return (mptl_cuda_layernorm){.rows = pixels(call),
                               .c = (size_t)mptl_call_output(call).c,
                               .eps = call->op->attr.eps,
                               .weight = call->theta[MPTL_NORM_WEIGHT],
                               .bias = call->theta[MPTL_NORM_BIAS]};
}

static mptl_status layernorm_prepare(const mptl_call *call, size_t *scratch_bytes) {
  if (call->train)
    *scratch_bytes = mptl_cuda_layernorm_scratch(pixels(call), (size_t)mptl_call_output(call).c);
  return MPTL_OK;
}

static mptl_status layernorm_forward(const mptl_call *call) {
  mptl_cuda_layernorm norm = layernorm_of(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_layernorm_forward(&call->y, &call->in[0], &norm, stream(call)));
}

static mptl_status layernorm_backward(const mptl_call *call) {
  mptl_cuda_layernorm norm = layernorm_of(call);
  if (!call->ranging) {
    norm.dweight = call->dtheta[MPTL_NORM_WEIGHT];
    norm.dbias = call->dtheta[MPTL_NORM_BIAS];
  }
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_layernorm_backward(&call->dx[0], &call->in[0], &call->dy, &norm,
                                                       call->scratch, stream(call)));
}

/* ---- Loss ---- */

static mptl_status softmax_forward(const mptl_call *call) {
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_log_softmax_forward(&call->y, &call->in[0], (size_t)call->batch,
                                                        mptl_call_features(call), stream(call)));
}

static mptl_status softmax_backward(const mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  return MPTL_CUDA_LAUNCH(
      device(call),
      mptl_cuda_log_softmax_backward(&call->dx[0], &call->out, &call->dy, (size_t)call->batch,
                                     mptl_call_features(call), stream(call)));
}

static mptl_status loss_forward(const mptl_call *call) {
  mptl_loss_shape shape = mptl_call_loss(call);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_loss_forward(call->op->kind->id, &call->y, &call->in[0],
                                                 &call->targets, &shape, call->loss, stream(call)));
}

static mptl_status loss_backward(const mptl_call *call) {
  mptl_loss_shape shape = mptl_call_loss(call);
  if (!call->dx[0].wanted) return MPTL_OK;
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_loss_backward(call->op->kind->id, &call->dx[0], &call->in[0],
                                                  &call->dy, &call->targets, &shape, stream(call)));
}

#define LOSS(name, NAME, reads_x, by_values) \
  const mptl_cuda_row mptl_cuda_op_##name = {.forward = loss_forward, .backward = loss_backward};
MPTL_LOSSES(LOSS)
#undef LOSS

const mptl_cuda_row mptl_cuda_op_avgpool = {.forward = avgpool_forward,
                                            .backward = avgpool_backward};
const mptl_cuda_row mptl_cuda_op_mean = {.forward = avgpool_forward, .backward = avgpool_backward};
const mptl_cuda_row mptl_cuda_op_maxpool = {
    .prepare = maxpool_prepare, .forward = maxpool_forward, .backward = maxpool_backward};
const mptl_cuda_row mptl_cuda_op_concat = {.forward = concat_forward, .backward = concat_backward};
const mptl_cuda_row mptl_cuda_op_slice = {.forward = slice_forward, .backward = slice_backward};
const mptl_cuda_row mptl_cuda_op_layernorm = {
    .prepare = layernorm_prepare, .forward = layernorm_forward, .backward = layernorm_backward};
const mptl_cuda_row mptl_cuda_op_log_softmax = {.forward = softmax_forward,
                                                .backward = softmax_backward};

/* Pools, channels side by side, and the loss: one launch each. */
#include "backend/call_shapes.h"
#include "backend/cuda/cuda.h"

static mptl_cuda_device *device(const mptl_call *call) { return mptl_cuda_of(call); }
static mptl_cuda_stream stream(const mptl_call *call) { return mptl_cuda_stream_of(call); }

/* ---- Pools ---- */

static mptl_status avgpool_forward(mptl_call *call) {
  mptl_pool pool = mptl_call_pool(call);
  mptl_cuda_sink y = mptl_cuda_sink_of(device(call), &call->y);
  mptl_cuda_source x = mptl_cuda_source_of(device(call), &call->in[0]);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_avgpool_forward(&y, &x, &pool, stream(call)));
}

static mptl_status avgpool_backward(mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_pool pool = mptl_call_pool(call);
  mptl_cuda_sink dx = mptl_cuda_sink_of(device(call), &call->dx[0]);
  mptl_cuda_source dy = mptl_cuda_source_of(device(call), &call->dy);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_avgpool_backward(&dx, &dy, &pool, stream(call)));
}

static mptl_status maxpool_prepare(mptl_call *call, size_t *scratch_bytes) {
  mptl_pool pool = mptl_call_pool(call);
  if (call->train) *scratch_bytes = mptl_cuda_maxpool_scratch(&pool);
  return MPTL_OK;
}

static mptl_status maxpool_forward(mptl_call *call) {
  mptl_pool pool = mptl_call_pool(call);
  mptl_cuda_sink y = mptl_cuda_sink_of(device(call), &call->y);
  mptl_cuda_source x = mptl_cuda_source_of(device(call), &call->in[0]);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_maxpool_forward(&y, &x, &pool, stream(call)));
}

static mptl_status maxpool_backward(mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_pool pool = mptl_call_pool(call);
  mptl_cuda_sink dx = mptl_cuda_sink_of(device(call), &call->dx[0]);
  mptl_cuda_source x = mptl_cuda_source_of(device(call), &call->in[0]), dy = mptl_cuda_source_of(device(call), &call->dy);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_maxpool_backward(&dx, &x, &dy, &pool,
                                                                   mptl_cuda_address(device(call), call->scratch), stream(call)));
}

/* ---- Channels ---- */

static size_t pixels(const mptl_call *call) {
  mptl_shape out = mptl_cuda_out_shape(call);
  return (size_t)call->batch * (size_t)out.h * (size_t)out.w;
}

static mptl_cuda_concat concat_of(const mptl_call *call) {
  mptl_cuda_concat concat = {.pixels = pixels(call), .n_in = call->op->n_in, .shuffle = (size_t)call->op->attr.shuffle};
  for (int k = 0; k < call->op->n_in; k++) concat.counts[k] = (size_t)mptl_input_shape(call->graph, call->op, k).c;
  return concat;
}

static mptl_status concat_forward(mptl_call *call) {
  mptl_cuda_concat concat = concat_of(call);
  mptl_cuda_sink y = mptl_cuda_sink_of(device(call), &call->y);
  mptl_cuda_source x[MPTL_MAX_INPUTS];
  for (int k = 0; k < call->op->n_in; k++) x[k] = mptl_cuda_source_of(device(call), &call->in[k]);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_concat_forward(&y, x, &concat, stream(call)));
}

static mptl_status concat_backward(mptl_call *call) {
  mptl_cuda_concat concat = concat_of(call);
  mptl_cuda_source dy = mptl_cuda_source_of(device(call), &call->dy);
  mptl_cuda_sink dx[MPTL_MAX_INPUTS];
  for (int k = 0; k < call->op->n_in; k++) dx[k] = mptl_cuda_sink_of(device(call), &call->dx[k]);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_concat_backward(dx, &dy, &concat, stream(call)));
}

static mptl_cuda_slice slice_of(const mptl_call *call) {
  return (mptl_cuda_slice){.pixels = pixels(call),
                           .c = (size_t)mptl_input_shape(call->graph, call->op, 0).c,
                           .first = (size_t)call->op->attr.first,
                           .count = (size_t)mptl_cuda_out_shape(call).c,
                           .part = call->dx[0].part};
}

static mptl_status slice_forward(mptl_call *call) {
  mptl_cuda_slice slice = slice_of(call);
  mptl_cuda_sink y = mptl_cuda_sink_of(device(call), &call->y);
  mptl_cuda_source x = mptl_cuda_source_of(device(call), &call->in[0]);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_slice_forward(&y, &x, &slice, stream(call)));
}

static mptl_status slice_backward(mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_cuda_slice slice = slice_of(call);
  mptl_cuda_sink dx = mptl_cuda_sink_of(device(call), &call->dx[0]);
  mptl_cuda_source dy = mptl_cuda_source_of(device(call), &call->dy);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_slice_backward(&dx, &dy, &slice, stream(call)));
}

/* ---- Loss ---- */

static size_t classes(const mptl_call *call) { return (size_t)mptl_input_shape(call->graph, call->op, 0).c; }

static mptl_status softmax_forward(mptl_call *call) {
  mptl_cuda_sink y = mptl_cuda_sink_of(device(call), &call->y);
  mptl_cuda_source x = mptl_cuda_source_of(device(call), &call->in[0]);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_log_softmax_forward(&y, &x, (size_t)call->batch, classes(call), stream(call)));
}

static mptl_status softmax_backward(mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_cuda_sink dx = mptl_cuda_sink_of(device(call), &call->dx[0]);
  mptl_cuda_source y = mptl_cuda_source_of(device(call), &call->out), dy = mptl_cuda_source_of(device(call), &call->dy);
  return MPTL_CUDA_LAUNCH(device(call),
                          mptl_cuda_log_softmax_backward(&dx, &y, &dy, (size_t)call->batch, classes(call), stream(call)));
}

_Static_assert(sizeof(mptl_loss) == sizeof(mptl_cuda_loss) && offsetof(mptl_loss, correct) == offsetof(mptl_cuda_loss, correct),
               "the kernel fills in mptl_loss");

static mptl_status nll_forward(mptl_call *call) {
  mptl_cuda_sink y = mptl_cuda_sink_of(device(call), &call->y);
  mptl_cuda_source x = mptl_cuda_source_of(device(call), &call->in[0]);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_nll_loss_forward(&y, &x, mptl_cuda_address(device(call), call->labels),
                                                                   (size_t)call->batch, classes(call), (size_t)call->n_valid,
                                                                   mptl_cuda_address(device(call), call->loss), stream(call)));
}

static mptl_status nll_backward(mptl_call *call) {
  if (!call->dx[0].wanted) return MPTL_OK;
  mptl_cuda_sink dx = mptl_cuda_sink_of(device(call), &call->dx[0]);
  mptl_cuda_source dy = mptl_cuda_source_of(device(call), &call->dy);
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_nll_loss_backward(&dx, &dy, mptl_cuda_address(device(call), call->labels),
                                                                    (size_t)call->batch, classes(call), stream(call)));
}

const mptl_cuda_kind_row mptl_cuda_avgpool = {.kind = "avgpool", .forward = avgpool_forward, .backward = avgpool_backward};
const mptl_cuda_kind_row mptl_cuda_mean = {.kind = "mean", .forward = avgpool_forward, .backward = avgpool_backward};
const mptl_cuda_kind_row mptl_cuda_maxpool = {
    .kind = "maxpool", .prepare = maxpool_prepare, .forward = maxpool_forward, .backward = maxpool_backward};
const mptl_cuda_kind_row mptl_cuda_concat_channels = {.kind = "concat", .forward = concat_forward, .backward = concat_backward};
const mptl_cuda_kind_row mptl_cuda_slice_channels = {.kind = "slice", .forward = slice_forward, .backward = slice_backward};
const mptl_cuda_kind_row mptl_cuda_log_softmax = {
    .kind = "log_softmax", .forward = softmax_forward, .backward = softmax_backward};
const mptl_cuda_kind_row mptl_cuda_nll_loss = {.kind = "nll_loss", .forward = nll_forward, .backward = nll_backward};

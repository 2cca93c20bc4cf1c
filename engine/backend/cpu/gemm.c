/* conv2d and linear through oneDNN (dnn.h). Results leave it in binary32 and are rounded once, here. */
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/dnn.h"
#include "core/memory.h"

typedef struct gemm_state {
  mptl_dnn *dnn;
  void *packed[2]; /* weights in oneDNN's layout for MPTL_FORWARD, MPTL_BACKWARD_DATA */
  bool dx_wanted;
  size_t packed_bytes, dx_bytes; /* dx_bytes: room in scratch for a gradient that is added to another one */
} gemm_state;

static void destroy(mptl_call *call) {
  gemm_state *s = call->state;
  if (s == NULL) return;
  mptl_dnn_destroy(s->dnn);
  mptl_memory_free(s->packed[0]);
  mptl_memory_free(s->packed[1]);
  free(s);
  call->state = NULL;
}

static mptl_status create_conv2d(gemm_state *s, const mptl_call *call, const mptl_compute *compute) {
  mptl_shape in = mptl_input_shape(call->graph, call->op, 0), out = call->graph->values[call->op->out].shape;
  const mptl_attributes *a = &call->op->attr;
  mptl_conv_shape shape = {.n = call->batch,
                           .ic = in.c,
                           .ih = in.h,
                           .iw = in.w,
                           .oc = out.c,
                           .oh = out.h,
                           .ow = out.w,
                           .kh = a->kernel[0],
                           .kw = a->kernel[1],
                           .sh = a->stride[0],
                           .sw = a->stride[1],
                           .ph = a->padding[0],
                           .pw = a->padding[1],
                           .dh = a->dilation[0],
                           .dw = a->dilation[1],
                           .groups = a->groups,
                           .bias = a->bias};
  return mptl_dnn_conv_create(&s->dnn, &shape, compute);
}

/* A flattened image stays in NHWC; the weights' [out][c*h*w] is then read as [out][c][h][w]. */
static mptl_status create_linear(gemm_state *s, const mptl_call *call, const mptl_compute *compute) {
  mptl_shape in = call->graph->values[call->graph->values[call->op->in[0]].base].shape;
  mptl_linear_shape shape = {
      .n = call->batch, .c = in.c, .h = in.h, .w = in.w, .out = call->op->attr.out, .bias = call->op->attr.bias};
  return mptl_dnn_linear_create(&s->dnn, &shape, compute);
}

static mptl_status create(mptl_call *call, bool dx_wanted,
                          mptl_status (*make)(gemm_state *, const mptl_call *, const mptl_compute *)) {
  gemm_state *s = calloc(1, sizeof *s);
  if (s == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  call->state = s;
  s->dx_wanted = dx_wanted;
  mptl_compute compute[MPTL_PASSES] = {
      [MPTL_FORWARD] = MPTL_COMPUTE_F32,
      [MPTL_BACKWARD_DATA] = call->train && dx_wanted ? MPTL_COMPUTE_F32 : MPTL_COMPUTE_NONE,
      [MPTL_BACKWARD_WEIGHTS] = call->train ? MPTL_COMPUTE_F32 : MPTL_COMPUTE_NONE,
  };
  mptl_status status = make(s, call, compute);
  for (int pass = 0; pass < 2 && status == MPTL_OK; pass++) {
    if (compute[pass] == MPTL_COMPUTE_NONE) continue;
    size_t bytes = mptl_dnn_packed_bytes(s->dnn, (mptl_pass)pass);
    s->packed[pass] = mptl_memory_alloc(bytes);
    s->packed_bytes += bytes;
    if (s->packed[pass] == NULL) status = mptl_fail(MPTL_ENOMEM, "no memory for %zu bytes of packed weights", bytes);
  }
  if (call->dx[0].accumulate) s->dx_bytes = (mptl_batch_numel(call, call->op->in[0]) * sizeof(float) + 63) / 64 * 64;
  if (status != MPTL_OK) destroy(call);
  return status;
}

static mptl_status create_conv2d_op(mptl_call *call, bool dx_wanted) { return create(call, dx_wanted, create_conv2d); }
static mptl_status create_linear_op(mptl_call *call, bool dx_wanted) { return create(call, dx_wanted, create_linear); }

static size_t scratch_bytes(const mptl_call *call) {
  const gemm_state *s = call->state;
  return s->dx_bytes + mptl_dnn_scratch_bytes(s->dnn);
}

static size_t packed_bytes(const mptl_call *call) { return ((const gemm_state *)call->state)->packed_bytes; }

static mptl_status forward(mptl_call *call) {
  gemm_state *s = call->state;
  mptl_dnn_use_scratch(s->dnn, (char *)call->scratch + s->dx_bytes);
  MPTL_TRY(mptl_dnn_pack(s->dnn, MPTL_FORWARD, s->packed[0], call->theta[0]));
  MPTL_TRY(mptl_dnn_forward(s->dnn, call->y.data, call->in[0].data, s->packed[0], call->op->attr.bias ? call->theta[1] : NULL));
  mptl_store(call, &call->y, call->y.data, mptl_batch_numel(call, call->op->out));
  return MPTL_OK;
}

static mptl_status backward(mptl_call *call) {
  gemm_state *s = call->state;
  mptl_dnn_use_scratch(s->dnn, (char *)call->scratch + s->dx_bytes);
  MPTL_TRY(mptl_dnn_backward_weights(s->dnn, call->dtheta[0], call->op->attr.bias ? call->dtheta[1] : NULL, call->in[0].data,
                                     call->dy.data));
  mptl_sink *dx = &call->dx[0];
  if (dx->data == NULL) return MPTL_OK;
  MPTL_TRY(mptl_dnn_pack(s->dnn, MPTL_BACKWARD_DATA, s->packed[1], call->theta[0]));
  float *results = dx->accumulate ? call->scratch : dx->data;
  MPTL_TRY(mptl_dnn_backward_data(s->dnn, results, call->dy.data, s->packed[1]));
  mptl_store(call, dx, results, mptl_batch_numel(call, call->op->in[0]));
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_conv2d = {.kind = "conv2d",
                                     .create = create_conv2d_op,
                                     .destroy = destroy,
                                     .scratch_bytes = scratch_bytes,
                                     .packed_bytes = packed_bytes,
                                     .forward = forward,
                                     .backward = backward};
const mptl_cpu_op mptl_cpu_linear = {.kind = "linear",
                                     .create = create_linear_op,
                                     .destroy = destroy,
                                     .scratch_bytes = scratch_bytes,
                                     .packed_bytes = packed_bytes,
                                     .forward = forward,
                                     .backward = backward};

/* conv2d and linear through oneDNN (dnn.h). Results leave it in binary32 and are rounded once, here.
 *
 * Each pass multiplies in bf16 where that gives the same products as binary32 would (mptl_bf16_exact), by the formats of its two operands
 * at that step. Its operands are then cut to bf16, which loses nothing.
 */
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/dnn.h"
#include "core/memory.h"

enum { TYPES = 2, CHUNK = 16384 }; /* binary32, bf16; elements converted at a time */
static const mptl_compute types[TYPES] = {MPTL_COMPUTE_F32, MPTL_COMPUTE_BF16};

typedef struct gemm_state {
  mptl_dnn *dnn[TYPES];   /* the second only where it may be used */
  void *packed[TYPES][2]; /* weights in oneDNN's layout for MPTL_FORWARD, MPTL_BACKWARD_DATA; allocated when first used */
  size_t packed_bytes;
  size_t dx_bytes, src_bytes, dy_bytes; /* room in scratch: a gradient that is added to another one, bf16 operands */
} gemm_state;

typedef mptl_status create_fn(mptl_dnn **dnn, const mptl_call *call, const mptl_compute *compute);

static mptl_status create_conv2d(mptl_dnn **dnn, const mptl_call *call, const mptl_compute *compute) {
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
  return mptl_dnn_conv_create(dnn, &shape, compute);
}

/* A flattened image stays in NHWC; the weights' [out][c*h*w] is then read as [out][c][h][w]. */
static mptl_status create_linear(mptl_dnn **dnn, const mptl_call *call, const mptl_compute *compute) {
  mptl_shape in = call->graph->values[call->graph->values[call->op->in[0]].base].shape;
  mptl_linear_shape shape = {
      .n = call->batch, .c = in.c, .h = in.h, .w = in.w, .out = call->op->attr.out, .bias = call->op->attr.bias};
  return mptl_dnn_linear_create(dnn, &shape, compute);
}

static void destroy(mptl_call *call) {
  gemm_state *s = call->state;
  if (s == NULL) return;
  for (int t = 0; t < TYPES; t++) {
    mptl_dnn_destroy(s->dnn[t]);
    mptl_memory_free(s->packed[t][MPTL_FORWARD]);
    mptl_memory_free(s->packed[t][MPTL_BACKWARD_DATA]);
  }
  free(s);
  call->state = NULL;
}

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

static mptl_status create(mptl_call *call, bool dx_wanted, create_fn *make) {
  gemm_state *s = calloc(1, sizeof *s);
  if (s == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  call->state = s;
  size_t in = mptl_batch_numel(call, call->op->in[0]), out = mptl_batch_numel(call, call->op->out);
  if (call->dx[0].accumulate) s->dx_bytes = aligned(in * sizeof(float));
  mptl_status status = MPTL_OK;
  for (int t = 0; t < TYPES && status == MPTL_OK; t++) {
    if (types[t] == MPTL_COMPUTE_BF16 && (call->f32_only || !mptl_dnn_supports(types[t]))) continue;
    mptl_compute compute[MPTL_PASSES] = {types[t], types[t], types[t]};
    if (!call->train) compute[MPTL_BACKWARD_DATA] = compute[MPTL_BACKWARD_WEIGHTS] = MPTL_COMPUTE_NONE;
    if (!dx_wanted) compute[MPTL_BACKWARD_DATA] = MPTL_COMPUTE_NONE;
    status = make(&s->dnn[t], call, compute);
    /* A library without bf16 code for this shape: binary32 is always right. */
    if (status == MPTL_EUNSUPPORTED && types[t] == MPTL_COMPUTE_BF16) status = MPTL_OK;
    if (types[t] != MPTL_COMPUTE_BF16 || s->dnn[t] == NULL) continue;
    s->src_bytes = aligned(in * sizeof(uint16_t));
    s->dy_bytes = call->train ? aligned(out * sizeof(uint16_t)) : 0;
  }
  if (status != MPTL_OK) destroy(call);
  return status;
}

static mptl_status create_conv2d_op(mptl_call *call, bool dx_wanted) { return create(call, dx_wanted, create_conv2d); }
static mptl_status create_linear_op(mptl_call *call, bool dx_wanted) { return create(call, dx_wanted, create_linear); }

/* Scratch: a gradient to be added, the two bf16 operands, then oneDNN's own. */
static size_t own_scratch(const gemm_state *s) { return s->dx_bytes + s->src_bytes + s->dy_bytes; }

static size_t scratch_bytes(const mptl_call *call) {
  const gemm_state *s = call->state;
  size_t most = 0;
  for (int t = 0; t < TYPES; t++)
    if (s->dnn[t] != NULL && mptl_dnn_scratch_bytes(s->dnn[t]) > most) most = mptl_dnn_scratch_bytes(s->dnn[t]);
  return own_scratch(s) + most;
}

static size_t packed_bytes(const mptl_call *call) { return ((const gemm_state *)call->state)->packed_bytes; }

/* The type for operands rounded by a and b; NULL is a sum that was not rounded. */
static int type_for(const gemm_state *s, const mptl_rounder *a, const mptl_rounder *b) {
  return s->dnn[1] != NULL && a != NULL && b != NULL && mptl_bf16_exact(a->format, b->format);
}

/* The weights in the layout of a pass, packed anew. */
static mptl_status pack(mptl_call *call, int t, mptl_pass pass) {
  gemm_state *s = call->state;
  mptl_dnn_use_scratch(s->dnn[t], (char *)call->scratch + own_scratch(s));
  if (s->packed[t][pass] == NULL) {
    size_t bytes = mptl_dnn_packed_bytes(s->dnn[t], pass);
    s->packed[t][pass] = mptl_memory_alloc(bytes);
    if (s->packed[t][pass] == NULL) return mptl_fail(MPTL_ENOMEM, "no memory for %zu bytes of packed weights", bytes);
    s->packed_bytes += bytes;
  }
  return mptl_dnn_pack(s->dnn[t], pass, s->packed[t][pass], call->theta[0]);
}

/* The operand as type t wants it: as it is, or cut to bf16 into scratch at offset. */
static const void *operand(const mptl_call *call, int t, const float *x, size_t n, size_t offset) {
  if (types[t] != MPTL_COMPUTE_BF16) return x;
  uint16_t *y = (uint16_t *)((char *)call->scratch + offset);
#pragma omp parallel for schedule(static)
  for (size_t at = 0; at < n; at += CHUNK) mptl_layers()->to_bf16(y + at, x + at, n - at < CHUNK ? n - at : CHUNK);
  return y;
}

static mptl_status forward(mptl_call *call) {
  gemm_state *s = call->state;
  int t = type_for(s, call->in[0].rounder, call->theta_rounder);
  const void *src = operand(call, t, call->in[0].data, mptl_batch_numel(call, call->op->in[0]), s->dx_bytes);
  MPTL_TRY(pack(call, t, MPTL_FORWARD));
  const float *bias = call->op->attr.bias ? call->theta[1] : NULL;
  MPTL_TRY(mptl_dnn_forward(s->dnn[t], call->y.data, src, s->packed[t][MPTL_FORWARD], bias));
  mptl_store(call, &call->y, call->y.data, mptl_batch_numel(call, call->op->out));
  return MPTL_OK;
}

static mptl_status backward(mptl_call *call) {
  gemm_state *s = call->state;
  size_t in = mptl_batch_numel(call, call->op->in[0]), out = mptl_batch_numel(call, call->op->out);
  int weights = type_for(s, call->in[0].rounder, call->dy.rounder), data = type_for(s, call->theta_rounder, call->dy.rounder);
  const void *src = operand(call, weights, call->in[0].data, in, s->dx_bytes);
  /* One bf16 copy of dy serves both passes. */
  const void *dy[TYPES] = {call->dy.data, NULL};
  if (weights || data) dy[1] = operand(call, 1, call->dy.data, out, s->dx_bytes + s->src_bytes);
  mptl_dnn_use_scratch(s->dnn[weights], (char *)call->scratch + own_scratch(s));
  float *dbias = call->op->attr.bias ? call->dtheta[1] : NULL;
  MPTL_TRY(mptl_dnn_backward_weights(s->dnn[weights], call->dtheta[0], dbias, src, dy[weights]));
  mptl_sink *dx = &call->dx[0];
  if (dx->data == NULL) return MPTL_OK;
  MPTL_TRY(pack(call, data, MPTL_BACKWARD_DATA));
  float *results = dx->accumulate ? call->scratch : dx->data;
  MPTL_TRY(mptl_dnn_backward_data(s->dnn[data], results, dy[data], s->packed[data][MPTL_BACKWARD_DATA]));
  mptl_store(call, dx, results, in);
  return MPTL_OK;
}

const char *mptl_cpu_compute(mptl_format a, mptl_format b) {
  return mptl_dnn_supports(MPTL_COMPUTE_BF16) && mptl_bf16_exact(a, b) ? "bf16" : "f32";
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

/* conv2d and linear through oneDNN (dnn.h). Results leave it in binary32 and are rounded once, here.
 *
 * Each pass multiplies in bf16 where that gives the same products as binary32 would (mptl_bf16_exact), by the formats of its two operands
 * at that step. A pass goes through the batch in blocks of images that stay in the caches between decoding, multiplying, rounding and
 * encoding; so scratch memory does not grow with the batch. The gradient of the weights is the sum of the blocks', in order.
 */
#include <stdlib.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/dnn.h"

enum { TYPES = 2, CHUNK = 16384 }; /* binary32, bf16; elements converted at a time */
enum { BLOCK_BYTES = 2 << 20 };    /* of a block's larger operand, in binary32 */
static const mptl_compute types[TYPES] = {MPTL_COMPUTE_F32, MPTL_COMPUTE_BF16};

typedef struct gemm_state {
  int block;            /* images; divides the batch */
  mptl_dnn *dnn[TYPES]; /* the second only where it may be used */
} gemm_state;

typedef mptl_status create_fn(mptl_dnn **dnn, const mptl_call *call, const mptl_compute *compute);

static mptl_status create_conv2d(mptl_dnn **dnn, const mptl_call *call, const mptl_compute *compute) {
  mptl_shape in = mptl_input_shape(call->graph, call->op, 0), out = call->graph->values[call->op->out].shape;
  const mptl_attributes *a = &call->op->attr;
  mptl_conv_shape shape = {.n = ((const gemm_state *)call->state)->block,
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
  mptl_linear_shape shape = {.n = ((const gemm_state *)call->state)->block,
                             .c = in.c,
                             .h = in.h,
                             .w = in.w,
                             .out = call->op->attr.out,
                             .bias = call->op->attr.bias};
  return mptl_dnn_linear_create(dnn, &shape, compute);
}

static void destroy(mptl_call *call) {
  gemm_state *s = call->state;
  if (s == NULL) return;
  for (int t = 0; t < TYPES; t++) mptl_dnn_destroy(s->dnn[t]);
  free(s);
  call->state = NULL;
}

/* Elements of one image: of the input, of the output. */
static size_t in_image(const mptl_call *call) { return mptl_batch_numel(call, call->op->in[0]) / (size_t)call->batch; }
static size_t out_image(const mptl_call *call) { return mptl_batch_numel(call, call->op->out) / (size_t)call->batch; }

/* Images of a block: as many as BLOCK_BYTES hold, but a divisor of the batch; where all divisors are much smaller, the whole batch. */
static int block_images(const mptl_call *call) {
  size_t image = in_image(call) > out_image(call) ? in_image(call) : out_image(call);
  size_t most = BLOCK_BYTES / sizeof(float) / image;
  if (most >= (size_t)call->batch) return call->batch;
  for (int n = most > 1 ? (int)most : 1; 4 * (size_t)n >= most; n--)
    if (call->batch % n == 0) return n;
  return call->batch;
}

static mptl_status create(mptl_call *call, bool dx_wanted, create_fn *make) {
  gemm_state *s = calloc(1, sizeof *s);
  if (s == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  call->state = s;
  s->block = block_images(call);
  mptl_status status = MPTL_OK;
  for (int t = 0; t < TYPES && status == MPTL_OK; t++) {
    if (types[t] == MPTL_COMPUTE_BF16 && (call->f32_only || !mptl_dnn_supports(types[t]))) continue;
    mptl_compute compute[MPTL_PASSES] = {types[t], types[t], types[t]};
    if (!call->train) compute[MPTL_BACKWARD_DATA] = compute[MPTL_BACKWARD_WEIGHTS] = MPTL_COMPUTE_NONE;
    if (!dx_wanted) compute[MPTL_BACKWARD_DATA] = MPTL_COMPUTE_NONE;
    status = make(&s->dnn[t], call, compute);
    /* A library without bf16 code for this shape: binary32 is always right. */
    if (status == MPTL_EUNSUPPORTED && types[t] == MPTL_COMPUTE_BF16) status = MPTL_OK;
  }
  if (status != MPTL_OK) destroy(call);
  return status;
}

static mptl_status create_conv2d_op(mptl_call *call, bool dx_wanted) { return create(call, dx_wanted, create_conv2d); }
static mptl_status create_linear_op(mptl_call *call, bool dx_wanted) { return create(call, dx_wanted, create_linear); }

/* The type for operands rounded by a and b; NULL is a sum that was not rounded. */
static int type_for(const gemm_state *s, const mptl_rounder *a, const mptl_rounder *b) {
  return s->dnn[1] != NULL && a != NULL && b != NULL && mptl_bf16_exact(a->format, b->format);
}

/* A direction's compute types and where things are in the operator's scratch memory. */
typedef struct layout {
  int first, data;            /* types: of forward or the gradient of the weights; of the gradient of the input */
  size_t x[TYPES], dy[TYPES]; /* blocks of operands, converted */
  size_t results;             /* a block of results on their way to an output or gradient in another form */
  size_t packed, dtheta[2];   /* weights as the pass wants them; a block's gradient of the weights, of the bias */
  size_t library;
  size_t bytes;
} layout;

static size_t take(layout *l, size_t bytes) {
  size_t at = l->bytes;
  l->bytes += mptl_aligned(bytes);
  return at;
}

/* Whether an operand has to be converted for a type, and the room for it. */
static bool converts(const mptl_source *x, int type) { return types[type] == MPTL_COMPUTE_BF16 || x->size < sizeof(float); }
static size_t operand_bytes(const mptl_source *x, int type, size_t n) {
  return !converts(x, type) ? 0 : n * (types[type] == MPTL_COMPUTE_BF16 ? sizeof(uint16_t) : sizeof(float));
}

static bool has_blocks(const mptl_call *call) { return ((const gemm_state *)call->state)->block < call->batch; }

static layout forward_layout(const mptl_call *call) {
  const gemm_state *s = call->state;
  layout l = {.first = type_for(s, call->in[0].rounder, call->theta_rounder)};
  size_t block = (size_t)s->block;
  l.x[l.first] = take(&l, operand_bytes(&call->in[0], l.first, block * in_image(call)));
  l.results = take(&l, call->y.size < sizeof(float) ? block * out_image(call) * sizeof(float) : 0);
  l.packed = take(&l, mptl_dnn_packed_bytes(s->dnn[l.first], MPTL_FORWARD));
  l.library = take(&l, mptl_dnn_scratch_bytes(s->dnn[l.first]));
  return l;
}

static layout backward_layout(const mptl_call *call) {
  const gemm_state *s = call->state;
  layout l = {.first = type_for(s, call->in[0].rounder, call->dy.rounder),
              .data = type_for(s, call->theta_rounder, call->dy.rounder)};
  size_t block = (size_t)s->block, scratch = mptl_dnn_scratch_bytes(s->dnn[l.first]);
  bool dx = mptl_wanted(&call->dx[0]);
  l.x[l.first] = take(&l, operand_bytes(&call->in[0], l.first, block * in_image(call)));
  l.dy[l.first] = take(&l, operand_bytes(&call->dy, l.first, block * out_image(call)));
  for (int k = 0; k < 2 && k < call->op->n_param && has_blocks(call); k++)
    l.dtheta[k] = take(&l, call->graph->params[call->op->first_param + k].numel * sizeof(float));
  if (dx) {
    if (l.data != l.first) l.dy[l.data] = take(&l, operand_bytes(&call->dy, l.data, block * out_image(call)));
    bool in_place = call->dx[0].size == sizeof(float) && !call->dx[0].accumulate;
    l.results = take(&l, in_place ? 0 : block * in_image(call) * sizeof(float));
    l.packed = take(&l, mptl_dnn_packed_bytes(s->dnn[l.data], MPTL_BACKWARD_DATA));
    if (mptl_dnn_scratch_bytes(s->dnn[l.data]) > scratch) scratch = mptl_dnn_scratch_bytes(s->dnn[l.data]);
  }
  l.library = take(&l, scratch);
  return l;
}

static size_t scratch_bytes(const mptl_call *call) {
  size_t forward = forward_layout(call).bytes, backward = call->train ? backward_layout(call).bytes : 0;
  return forward > backward ? forward : backward;
}

static void *area(const mptl_call *call, size_t offset) { return (char *)call->scratch + offset; }

/* n elements of an operand from offset on, as a type wants them. */
static const void *operand(const mptl_call *call, const mptl_source *x, int type, size_t offset, size_t n, size_t at) {
  if (!converts(x, type)) return (const float *)x->data + offset;
  bool bf16 = types[type] == MPTL_COMPUTE_BF16;
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < n; i += CHUNK) {
    size_t count = n - i < CHUNK ? n - i : CHUNK;
    if (bf16)
      mptl_read_bf16(x, offset + i, count, (uint16_t *)area(call, at) + i);
    else
      mptl_read(x, offset + i, count, (float *)area(call, at) + i);
  }
  return area(call, at);
}

static mptl_status forward(mptl_call *call) {
  const gemm_state *s = call->state;
  const layout l = forward_layout(call);
  mptl_dnn *dnn = s->dnn[l.first];
  size_t in = (size_t)s->block * in_image(call), out = (size_t)s->block * out_image(call);
  const float *bias = call->op->attr.bias ? call->theta[1] : NULL;
  mptl_dnn_use_scratch(dnn, area(call, l.library));
  MPTL_TRY(mptl_dnn_pack(dnn, MPTL_FORWARD, area(call, l.packed), call->theta[0]));
  for (size_t b = 0; b < (size_t)(call->batch / s->block); b++) {
    const void *x = operand(call, &call->in[0], l.first, b * in, in, l.x[l.first]);
    float *results = call->y.size == sizeof(float) ? (float *)call->y.data + b * out : area(call, l.results);
    MPTL_TRY(mptl_dnn_forward(dnn, results, x, area(call, l.packed), bias));
    mptl_write_parallel(&call->y, b * out, out, results);
  }
  return MPTL_OK;
}

/* The gradient of the parameters of a block: the first one's is stored, the others' are added. */
static mptl_status backward_theta(mptl_call *call, const layout *l, size_t block, const void *x, const void *dy) {
  const gemm_state *s = call->state;
  bool bias = call->op->attr.bias;
  if (block == 0) return mptl_dnn_backward_weights(s->dnn[l->first], call->dtheta[0], bias ? call->dtheta[1] : NULL, x, dy);
  float *more[2] = {area(call, l->dtheta[0]), bias ? area(call, l->dtheta[1]) : NULL};
  MPTL_TRY(mptl_dnn_backward_weights(s->dnn[l->first], more[0], more[1], x, dy));
  for (int k = 0; k < 1 + bias; k++) {
    size_t n = call->graph->params[call->op->first_param + k].numel;
#pragma omp parallel for schedule(static) if (n > CHUNK)
    for (size_t i = 0; i < n; i += CHUNK)
      mptl_layers()->accumulate(call->dtheta[k] + i, more[k] + i, n - i < CHUNK ? n - i : CHUNK);
  }
  return MPTL_OK;
}

static mptl_status backward(mptl_call *call) {
  const gemm_state *s = call->state;
  const layout l = backward_layout(call);
  mptl_sink *dx = &call->dx[0];
  size_t in = (size_t)s->block * in_image(call), out = (size_t)s->block * out_image(call);
  mptl_dnn_use_scratch(s->dnn[l.first], area(call, l.library));
  if (mptl_wanted(dx)) {
    mptl_dnn_use_scratch(s->dnn[l.data], area(call, l.library));
    MPTL_TRY(mptl_dnn_pack(s->dnn[l.data], MPTL_BACKWARD_DATA, area(call, l.packed), call->theta[0]));
  }
  for (size_t b = 0; b < (size_t)(call->batch / s->block); b++) {
    const void *x = operand(call, &call->in[0], l.first, b * in, in, l.x[l.first]);
    const void *dy = operand(call, &call->dy, l.first, b * out, out, l.dy[l.first]);
    MPTL_TRY(backward_theta(call, &l, b, x, dy));
    if (!mptl_wanted(dx)) continue;
    if (l.data != l.first) dy = operand(call, &call->dy, l.data, b * out, out, l.dy[l.data]);
    bool in_place = dx->size == sizeof(float) && !dx->accumulate;
    float *results = in_place ? (float *)dx->data + b * in : area(call, l.results);
    MPTL_TRY(mptl_dnn_backward_data(s->dnn[l.data], results, dy, area(call, l.packed)));
    mptl_write_parallel(dx, b * in, in, results);
  }
  return MPTL_OK;
}

const char *mptl_cpu_compute(mptl_format a, mptl_format b) {
  return mptl_dnn_supports(MPTL_COMPUTE_BF16) && mptl_bf16_exact(a, b) ? "bf16" : "f32";
}

const mptl_cpu_op mptl_cpu_conv2d = {.kind = "conv2d",
                                     .create = create_conv2d_op,
                                     .destroy = destroy,
                                     .scratch_bytes = scratch_bytes,
                                     .forward = forward,
                                     .backward = backward};
const mptl_cpu_op mptl_cpu_linear = {.kind = "linear",
                                     .create = create_linear_op,
                                     .destroy = destroy,
                                     .scratch_bytes = scratch_bytes,
                                     .forward = forward,
                                     .backward = backward};

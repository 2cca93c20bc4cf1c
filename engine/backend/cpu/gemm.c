/* conv2d and linear through oneDNN (dnn.h). Results leave it in binary32 and are rounded once, here.
 *
 * Each pass multiplies in bf16 where that gives the same products as binary32 would, by the formats of its two operands (gemm.h). It goes
 * through the batch in blocks of images that stay in the caches between decoding, multiplying, rounding and encoding; so scratch memory
 * does not grow with the batch. The gradient of the weights is the sum of the blocks', in order.
 *
 * Where an operand's bias shift comes from its values (FP(e,m,auto)), so does the way to multiply: it is chosen when the pass begins. There is
 * code and memory for either outcome.
 */
#include "backend/cpu/gemm.h"

#include <stdlib.h>

#include "backend/call_shapes.h"

enum { BLOCK_BYTES = 2 << 20 }; /* of a block's larger operand, in binary32 */

/* What a pass works with, for the formats of now; addresses are offsets in the operator's scratch memory. */
typedef struct gemm_pass {
  mptl_gemm_kind kind;
  mptl_repeat first, second; /* of its two operands: input and weights, gradient and weights, input and gradient */
  size_t x, y;               /* blocks of the input, of the output's gradient */
  size_t weights, packed;    /* repeated; as oneDNN wants them */
  size_t results;            /* a block of results on their way to a value in another form */
  size_t more[2];            /* a later block's gradient of the weights, of the bias */
  size_t library;
} gemm_pass;

/* By what a pass chooses the way to multiply: by its formats as they are or, to see what memory it may take, by the outcomes that the shifts
 * of auto_bias formats may have. */
typedef enum outcome { BY_FORMATS, NARROWEST, BINARY32 } outcome;

typedef struct gemm_state {
  int block; /* images; divides the batch */
  gemm_pass pass[MPTL_PASSES];
  outcome outcome[MPTL_PASSES];                /* BY_FORMATS but in prepare */
  mptl_dnn *dnn[MPTL_PASSES][MPTL_GEMM_KINDS]; /* made when first needed */
} gemm_state;

static gemm_state *state(const mptl_call *call) { return call->state; }

/* ---- Shapes ---- */

/* Elements of one image: of the input, of the output. */
static size_t in_image(const mptl_call *call) { return mptl_batch_numel(call, call->op->in[0]) / (size_t)call->batch; }
static size_t out_image(const mptl_call *call) { return mptl_batch_numel(call, call->op->out) / (size_t)call->batch; }
static size_t param_numel(const mptl_call *call, int k) { return call->graph->params[call->op->first_param + k].numel; }

/* oneDNN's operator for one pass; what the pass sums over is as many times as long as the kind repeats it. */
static mptl_status create_dnn(mptl_dnn **dnn, const mptl_call *call, mptl_pass pass, mptl_gemm_kind kind) {
  mptl_shape in = mptl_call_input(call, 0), out = mptl_call_output(call);
  int repeats = (int)mptl_gemm_repeats(kind);
  int n = state(call)->block * (pass == MPTL_BACKWARD_WEIGHTS ? repeats : 1);
  int ic = in.c * (pass == MPTL_FORWARD ? repeats : 1), oc = out.c * (pass == MPTL_BACKWARD_DATA ? repeats : 1);
  mptl_compute compute[MPTL_PASSES] = {MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  compute[pass] = kind == MPTL_GEMM_F32 ? MPTL_COMPUTE_F32 : MPTL_COMPUTE_BF16;
  mptl_call_shape s = mptl_call_shape_of(call, n, ic, oc);
  return s.is_linear ? mptl_dnn_linear_create(dnn, mptl_threads(call), &s.linear, compute)
                     : mptl_dnn_conv_create(dnn, mptl_threads(call), &s.conv, compute);
}

/* What is repeated as a piece: a group's channels of a pixel, all images of a block; of weights, those that belong to such channels. */
static size_t groups(const mptl_call *call) { return (size_t)call->op->attr.groups; }
static size_t in_chunk(const mptl_call *call) { return (size_t)mptl_call_input(call, 0).c / groups(call); }
static size_t out_chunk(const mptl_call *call) { return (size_t)mptl_call_output(call).c / groups(call); }
static size_t weights_chunk(const mptl_call *call, mptl_pass pass) {
  size_t out = (size_t)mptl_call_output(call).c;
  return param_numel(call, MPTL_PRODUCT_WEIGHT) / (pass == MPTL_FORWARD ? out : groups(call));
}

/* Images of a block: as many as BLOCK_BYTES hold, but a divisor of the batch; where all divisors are much smaller, the whole batch. */
static int block_images(const mptl_call *call) {
  size_t image = in_image(call) > out_image(call) ? in_image(call) : out_image(call);
  size_t most = BLOCK_BYTES / sizeof(float) / image;
  if (most >= (size_t)call->batch) return call->batch;
  for (int n = most > 1 ? (int)most : 1; 4 * (size_t)n >= most; n--)
    if (call->batch % n == 0) return n;
  return call->batch;
}

/* ---- Preparing ---- */

static mptl_status create(void **state_of_call, const mptl_call *call) {
  gemm_state *s = calloc(1, sizeof *s);
  if (s == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  s->block = block_images(call);
  *state_of_call = s;
  return MPTL_OK;
}

static void destroy(void *state_of_call) {
  gemm_state *s = state_of_call;
  if (s == NULL) return;
  for (int pass = 0; pass < MPTL_PASSES; pass++)
    for (int kind = 0; kind < MPTL_GEMM_KINDS; kind++) mptl_dnn_destroy(s->dnn[pass][kind]);
  free(s);
}

static bool varies(const mptl_rounder *r) { return r != NULL && r->format.auto_bias; }

static mptl_gemm_kind choose_kind(const mptl_call *call, outcome o, const mptl_rounder *first, const mptl_rounder *second) {
  if (first == NULL || second == NULL || o == BINARY32) return MPTL_GEMM_F32;
  mptl_format a = first->format, b = second->format;
  if (o == NARROWEST && a.auto_bias) a.b = -127; /* no value is too small */
  if (o == NARROWEST && b.auto_bias) b.b = -127;
  return mptl_gemm_choose(call->compute, &a, &b, call->op->attr.groups);
}

static size_t take(size_t *bytes, size_t more) {
  size_t at = *bytes;
  *bytes += mptl_aligned(more);
  return at;
}

/* Decides how a pass multiplies. Where the library has no code for that, binary32 is always right. */
static mptl_status choose(const mptl_call *call, mptl_pass pass, const mptl_rounder *first, const mptl_rounder *second) {
  gemm_state *s = state(call);
  gemm_pass *p = &s->pass[pass];
  *p = (gemm_pass){.kind = choose_kind(call, s->outcome[pass], first, second)};
  mptl_status status = MPTL_OK;
  if (s->dnn[pass][p->kind] == NULL) status = create_dnn(&s->dnn[pass][p->kind], call, pass, p->kind);
  if (status == MPTL_EUNSUPPORTED && p->kind != MPTL_GEMM_F32) {
    p->kind = MPTL_GEMM_F32;
    status = s->dnn[pass][MPTL_GEMM_F32] ? MPTL_OK : create_dnn(&s->dnn[pass][MPTL_GEMM_F32], call, pass, MPTL_GEMM_F32);
  }
  if (status != MPTL_OK || p->kind == MPTL_GEMM_F32) return status;
  p->first = mptl_gemm_repeat(p->kind, false, first->format);
  p->second = mptl_gemm_repeat(p->kind, true, second->format);
  return MPTL_OK;
}

/* Scratch of the weights of a pass and of its code. */
static void place_weights(const mptl_call *call, mptl_pass pass, size_t *bytes) {
  gemm_pass *p = &state(call)->pass[pass];
  const mptl_dnn *dnn = state(call)->dnn[pass][p->kind];
  p->weights = take(bytes, mptl_gemm_weights_bytes(p->kind, param_numel(call, MPTL_PRODUCT_WEIGHT)));
  p->packed = take(bytes, mptl_dnn_packed_bytes(dnn, pass));
  p->library = take(bytes, mptl_dnn_scratch_bytes(dnn));
}

static mptl_status prepare_forward(const mptl_call *call, size_t *bytes) {
  gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  size_t block = (size_t)state(call)->block;
  MPTL_TRY(choose(call, MPTL_FORWARD, call->in[0].rounder, call->theta_rounder));
  p->x = take(bytes, mptl_gemm_operand_bytes(&call->in[0], p->kind, block * in_image(call)));
  p->results = take(bytes, call->y.size < sizeof(float) ? block * out_image(call) * sizeof(float) : 0);
  place_weights(call, MPTL_FORWARD, bytes);
  return MPTL_OK;
}

static bool in_place(const mptl_sink *sink) { return sink->size == sizeof(float) && !sink->accumulate; }

/* Whether one copy of the output's gradient serves both passes. */
static bool shares_dy(const gemm_state *s) {
  mptl_gemm_kind a = s->pass[MPTL_BACKWARD_WEIGHTS].kind, b = s->pass[MPTL_BACKWARD_DATA].kind;
  return a == b && mptl_gemm_repeats(a) == 1;
}

static mptl_status prepare_backward(const mptl_call *call, size_t *bytes) {
  gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS], *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  size_t block = (size_t)state(call)->block, in = block * in_image(call), out = block * out_image(call);
  MPTL_TRY(choose(call, MPTL_BACKWARD_WEIGHTS, call->in[0].rounder, call->dy.rounder));
  w->x = take(bytes, mptl_gemm_operand_bytes(&call->in[0], w->kind, in));
  w->y = take(bytes, mptl_gemm_operand_bytes(&call->dy, w->kind, out));
  for (int k = 0; k < call->op->n_param && (int)block < call->batch; k++)
    w->more[k] = take(bytes, param_numel(call, k) * sizeof(float));
  w->library = take(bytes, mptl_dnn_scratch_bytes(state(call)->dnn[MPTL_BACKWARD_WEIGHTS][w->kind]));
  if (!mptl_wanted(&call->dx[0])) return MPTL_OK;
  MPTL_TRY(choose(call, MPTL_BACKWARD_DATA, call->dy.rounder, call->theta_rounder));
  d->y = shares_dy(state(call)) ? w->y : take(bytes, mptl_gemm_operand_bytes(&call->dy, d->kind, out));
  d->results = take(bytes, in_place(&call->dx[0]) ? 0 : in * sizeof(float));
  place_weights(call, MPTL_BACKWARD_DATA, bytes);
  return MPTL_OK;
}

/* Whether the ways to multiply may be others at each step. */
static bool operands_vary(const mptl_call *call) {
  return varies(call->in[0].rounder) || varies(call->theta_rounder) || varies(call->dy.rounder);
}

static mptl_status prepare(const mptl_call *call, size_t *scratch_bytes) {
  gemm_state *s = state(call);
  outcome first = operands_vary(call) ? NARROWEST : BY_FORMATS, last = operands_vary(call) ? BINARY32 : BY_FORMATS;
  *scratch_bytes = 0;
  for (outcome w = first; w <= last; w++) {
    for (outcome d = first; d <= last; d++) {
      size_t forward = 0, backward = 0;
      s->outcome[MPTL_FORWARD] = s->outcome[MPTL_BACKWARD_WEIGHTS] = w;
      s->outcome[MPTL_BACKWARD_DATA] = d;
      MPTL_TRY(prepare_forward(call, &forward));
      if (call->train) MPTL_TRY(prepare_backward(call, &backward));
      if (forward > *scratch_bytes) *scratch_bytes = forward;
      if (backward > *scratch_bytes) *scratch_bytes = backward;
    }
  }
  for (int pass = 0; pass < MPTL_PASSES; pass++) s->outcome[pass] = BY_FORMATS;
  return MPTL_OK;
}

/* Lays out the passes for the formats of the moment, if they may be others than before. */
static mptl_status lay_out(const mptl_call *call, bool is_forward) {
  size_t bytes = 0;
  if (!operands_vary(call)) return MPTL_OK;
  return is_forward ? prepare_forward(call, &bytes) : prepare_backward(call, &bytes);
}

/* ---- Running ---- */

static void *area(const mptl_call *call, size_t offset) { return (char *)call->scratch + offset; }

/* oneDNN's operator of a pass, with its scratch memory. */
static mptl_dnn *dnn_of(const mptl_call *call, mptl_pass pass) {
  mptl_dnn *dnn = state(call)->dnn[pass][state(call)->pass[pass].kind];
  mptl_dnn_use_scratch(dnn, area(call, state(call)->pass[pass].library));
  return dnn;
}

static mptl_status pack_weights(const mptl_call *call, mptl_pass pass) {
  const gemm_pass *p = &state(call)->pass[pass];
  const float *weights =
      mptl_gemm_weights(mptl_threads(call), call->theta[MPTL_PRODUCT_WEIGHT], p->kind, p->second, weights_chunk(call, pass),
                        param_numel(call, MPTL_PRODUCT_WEIGHT), area(call, p->weights));
  return mptl_dnn_pack(dnn_of(call, pass), pass, area(call, p->packed), weights);
}

static mptl_status forward(const mptl_call *call) {
  const gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  size_t block = (size_t)state(call)->block, in = block * in_image(call), out = block * out_image(call);
  const float *bias = call->op->attr.bias ? call->theta[MPTL_PRODUCT_BIAS] : NULL;
  MPTL_TRY(lay_out(call, true));
  MPTL_TRY(pack_weights(call, MPTL_FORWARD));
  for (size_t b = 0; b < (size_t)call->batch / block; b++) {
    const void *x =
        mptl_gemm_operand(mptl_threads(call), &call->in[0], p->kind, p->first, in_chunk(call), b * in, in, area(call, p->x));
    float *results = call->y.size == sizeof(float) ? (float *)call->y.data + b * out : area(call, p->results);
    MPTL_TRY(mptl_dnn_forward(dnn_of(call, MPTL_FORWARD), results, x, area(call, p->packed), bias));
    mptl_write_parallel(call, &call->y, b * out, out, results);
  }
  return MPTL_OK;
}

static void add(int threads, float *y, const float *x, size_t n) {
  enum { CHUNK = 16384 };
#pragma omp parallel for num_threads(threads) schedule(static) if (n > CHUNK)
  for (size_t i = 0; i < n; i += CHUNK) mptl_layers()->accumulate(y + i, x + i, n - i < CHUNK ? n - i : CHUNK);
}

/* The gradient of the parameters of a block: the first one's is stored, the others' are added. */
static mptl_status backward_theta(const mptl_call *call, size_t block, const void *x, const void *dy) {
  const gemm_pass *p = &state(call)->pass[MPTL_BACKWARD_WEIGHTS];
  mptl_dnn *dnn = dnn_of(call, MPTL_BACKWARD_WEIGHTS);
  bool bias = call->op->attr.bias, first = block == 0;
  float *dweights = first ? call->dtheta[MPTL_PRODUCT_WEIGHT] : area(call, p->more[0]), *dbias = NULL;
  if (bias) dbias = first ? call->dtheta[MPTL_PRODUCT_BIAS] : area(call, p->more[1]);
  MPTL_TRY(mptl_dnn_backward_weights(dnn, dweights, dbias, x, dy));
  /* Beside each part of the input the gradient comes once more, and so it does in the bias's sum. */
  for (size_t i = 0; bias && p->kind != MPTL_GEMM_F32 && p->first.terms > 1 && i < param_numel(call, MPTL_PRODUCT_BIAS); i++)
    dbias[i] *= 0.5f;
  if (!first) add(mptl_threads(call), call->dtheta[MPTL_PRODUCT_WEIGHT], dweights, param_numel(call, MPTL_PRODUCT_WEIGHT));
  if (!first && bias) add(mptl_threads(call), call->dtheta[MPTL_PRODUCT_BIAS], dbias, param_numel(call, MPTL_PRODUCT_BIAS));
  return MPTL_OK;
}

static mptl_status backward(const mptl_call *call) {
  const gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS], *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  const mptl_sink *dx = &call->dx[0];
  size_t block = (size_t)state(call)->block, in = block * in_image(call), out = block * out_image(call);
  MPTL_TRY(lay_out(call, false));
  if (mptl_wanted(dx)) MPTL_TRY(pack_weights(call, MPTL_BACKWARD_DATA));
  for (size_t b = 0; b < (size_t)call->batch / block; b++) {
    const void *dy = mptl_gemm_operand(mptl_threads(call), &call->dy, w->kind, w->second, out, b * out, out, area(call, w->y));
    if (!dx->ranging) {
      const void *x = mptl_gemm_operand(mptl_threads(call), &call->in[0], w->kind, w->first, in, b * in, in, area(call, w->x));
      MPTL_TRY(backward_theta(call, b, x, dy));
    }
    if (!mptl_wanted(dx)) continue;
    if (!shares_dy(state(call)))
      dy = mptl_gemm_operand(mptl_threads(call), &call->dy, d->kind, d->first, out_chunk(call), b * out, out, area(call, d->y));
    float *results = in_place(dx) ? (float *)dx->data + b * in : area(call, d->results);
    MPTL_TRY(mptl_dnn_backward_data(dnn_of(call, MPTL_BACKWARD_DATA), results, dy, area(call, d->packed)));
    mptl_write_parallel(call, dx, b * in, in, results);
  }
  return MPTL_OK;
}

const char *mptl_cpu_compute(mptl_device *device, mptl_format a, mptl_format b, int groups, mptl_compute_setting setting) {
  (void)device;
  static const char *const names[MPTL_GEMM_KINDS] = {"f32", "bf16", "2xbf16", "4xbf16"};
  a = mptl_format_fit(a, 1);
  b = mptl_format_fit(b, 1);
  return names[mptl_gemm_choose(setting, &a, &b, groups)];
}

const mptl_cpu_op mptl_cpu_conv2d = {
    .create = create, .destroy = destroy, .prepare = prepare, .forward = forward, .backward = backward};
const mptl_cpu_op mptl_cpu_linear = {
    .create = create, .destroy = destroy, .prepare = prepare, .forward = forward, .backward = backward};

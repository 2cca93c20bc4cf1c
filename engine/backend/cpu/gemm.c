/* conv2d and linear. Each pass multiplies in binary32 (conv.h), or in bf16 (conv_bf16.h) if the
 * formats of both operands make that exact (gemm.h). Under the setting `onednn`, oneDNN multiplies
 * (dnn.h), in either type.
 *
 * oneDNN gives results in binary32; they are rounded once, here. Its passes run in blocks of
 * images, which stay in the caches while they are decoded, multiplied, rounded and encoded; so
 * scratch memory does not grow with the batch size. The gradient of the weights is the sum of the
 * blocks' gradients, in order.
 *
 * In FP(e,m,auto) an operand's bias shift depends on its values, and so does whether bf16 is exact.
 * The way to multiply is then chosen when the pass begins; prepare provides code and memory for
 * each choice.
 */
#include "backend/cpu/gemm.h"

#include <stdlib.h>

#include "backend/call_shapes.h"
#include "backend/cpu/conv_bf16.h"

enum { BLOCK_BYTES = 2 << 20 }; /* of a block's input or output, whichever is larger, in binary32 */

/* How a pass runs with the present formats. Members of type size_t are places in the scratch
 * memory. */
typedef struct gemm_pass {
  mptl_gemm_way way;
  bool by_dnn;               /* by oneDNN; else by conv.h or conv_bf16.h */
  mptl_repeat first, second; /* repetitions of its operands (mptl_arrays_of) */
  size_t x, y;               /* a block of the input, of the output's gradient */
  size_t weights, packed;    /* the weights: repeated; in the order of what multiplies */
  size_t results;            /* a block of results in binary32, if they are not stored so */
  size_t more[2];            /* the gradient of weights and bias, for blocks after the first */
  size_t scratch;            /* of what multiplies */
} gemm_pass;

/* How to multiply is chosen by the present formats. While prepare computes the memory for
 * FP(e,m,auto), it is chosen as if the shifts were best (bf16 if they can make it exact) or worst
 * (binary32). */
typedef enum outcome { BY_FORMATS, NARROWEST, BINARY32 } outcome;

typedef struct gemm_state {
  int block; /* images; divides the batch */
  gemm_pass pass[MPTL_PASSES];
  outcome outcome[MPTL_PASSES];                         /* BY_FORMATS, except in prepare */
  mptl_dnn *dnn[MPTL_PASSES][MPTL_GEMM_WAYS];           /* made when first needed */
  mptl_conv *conv[MPTL_PASSES];                         /* likewise */
  mptl_conv_bf16 *bf16[MPTL_PASSES][MPTL_GEMM_WAYS][2]; /* by the parts of the first operand, too */
} gemm_state;

static gemm_state *state(const mptl_call *call) { return call->state; }

/* A pass in bf16 as it was chosen. */
static mptl_conv_bf16 *bf16_of(const gemm_state *s, mptl_pass pass) {
  const gemm_pass *p = &s->pass[pass];
  return s->bf16[pass][p->way][p->first.terms - 1];
}

/* ---- Shapes ---- */

/* The elements of one image of the input, of the output. */
static size_t in_image(const mptl_call *call) {
  return mptl_batch_numel(call, call->op->in[0]) / (size_t)call->batch;
}
static size_t out_image(const mptl_call *call) {
  return mptl_batch_numel(call, call->op->out) / (size_t)call->batch;
}
static size_t param_numel(const mptl_call *call, int k) {
  return call->graph->params[call->op->first_param + k].numel;
}

/* Creates oneDNN's operator for one pass. The dimension of the sum is longer by the repetitions. */
static mptl_status create_dnn(mptl_dnn **dnn, const mptl_call *call, mptl_pass pass,
                              mptl_gemm_way way) {
  mptl_shape in = mptl_call_input(call, 0), out = mptl_call_output(call);
  int repeats = (int)mptl_gemm_repeats(way);
  int n = state(call)->block * (pass == MPTL_BACKWARD_WEIGHTS ? repeats : 1);
  int ic = in.c * (pass == MPTL_FORWARD ? repeats : 1),
      oc = out.c * (pass == MPTL_BACKWARD_DATA ? repeats : 1);
  mptl_compute compute[MPTL_PASSES] = {MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  compute[pass] = way == MPTL_GEMM_F32 ? MPTL_COMPUTE_F32 : MPTL_COMPUTE_BF16;
  mptl_call_shape s = mptl_call_shape_of(call, n, ic, oc);
  return s.is_linear ? mptl_dnn_linear_create(dnn, mptl_threads(call), &s.linear, compute)
                     : mptl_dnn_conv_create(dnn, mptl_threads(call), &s.conv, compute);
}

/* The shape of a pass of our own. A linear layer is the convolution whose window is its whole
 * input. */
static mptl_conv_shape conv_shape(const mptl_call *call) {
  mptl_call_shape s =
      mptl_call_shape_of(call, call->batch, mptl_call_input(call, 0).c, mptl_call_output(call).c);
  const mptl_linear_shape *l = &s.linear;
  if (!s.is_linear) return s.conv;
  return (mptl_conv_shape){.n = l->n,
                           .ic = l->c,
                           .ih = l->h,
                           .iw = l->w,
                           .oc = l->out,
                           .oh = 1,
                           .ow = 1,
                           .kh = l->h,
                           .kw = l->w,
                           .sh = l->h,
                           .sw = l->w,
                           .dh = 1,
                           .dw = 1,
                           .groups = 1,
                           .bias = l->bias};
}

static mptl_status create_conv(mptl_conv **conv, const mptl_call *call, mptl_pass pass) {
  const mptl_conv_shape s = conv_shape(call);
  return mptl_conv_create(conv, mptl_threads(call), &s, pass);
}

static mptl_status create_bf16(mptl_conv_bf16 **conv, const mptl_call *call, mptl_pass pass) {
  const gemm_pass *p = &state(call)->pass[pass];
  const unsigned parts[2] = {(unsigned)p->first.terms, (unsigned)p->second.terms};
  const mptl_conv_shape s = conv_shape(call);
  return mptl_conv_bf16_create(conv, mptl_bf16(), mptl_threads(call), &s, pass, parts);
}

/* The chunks that are repeated: the channels of a channel group in a pixel (for backward by
 * weights, whole blocks of images), and the weights that multiply such channels. */
static size_t channel_groups(const mptl_call *call) { return (size_t)call->op->attr.groups; }
static size_t in_chunk(const mptl_call *call) {
  return (size_t)mptl_call_input(call, 0).c / channel_groups(call);
}
static size_t out_chunk(const mptl_call *call) {
  return (size_t)mptl_call_output(call).c / channel_groups(call);
}
static size_t weights_chunk(const mptl_call *call, mptl_pass pass) {
  size_t out = (size_t)mptl_call_output(call).c;
  return param_numel(call, MPTL_PRODUCT_WEIGHT) /
         (pass == MPTL_FORWARD ? out : channel_groups(call));
}

/* The number of images of a block: the largest divisor of the batch size for which a block fits
 * BLOCK_BYTES. If all divisors are much smaller than that, the batch size. */
static int block_images(const mptl_call *call) {
  size_t image = in_image(call) > out_image(call) ? in_image(call) : out_image(call);
  size_t most = BLOCK_BYTES / sizeof(float) / image;
  if (most >= (size_t)call->batch) return call->batch;
  for (int n = most > 1 ? (int)most : 1; 4 * (size_t)n >= most; n--)
    if (call->batch % n == 0) return n;
  return call->batch;
}

/* ---- Preparing: choose how to multiply, and compute the memory ---- */

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
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    for (int way = 0; way < MPTL_GEMM_WAYS; way++) {
      mptl_dnn_destroy(s->dnn[pass][way]);
      for (int parts = 0; parts < 2; parts++) mptl_conv_bf16_destroy(s->bf16[pass][way][parts]);
    }
    mptl_conv_destroy(s->conv[pass]);
  }
  free(s);
}

/* Whether an operand's bias shift can change from step to step. */
static bool varies(const mptl_rounder *r) { return r != NULL && r->format.auto_bias; }

static mptl_gemm_way choose_way(const mptl_call *call, outcome o, const mptl_rounder *first,
                                const mptl_rounder *second) {
  if (first == NULL || second == NULL || o == BINARY32) return MPTL_GEMM_F32;
  mptl_format a = first->format, b = second->format;
  if (o == NARROWEST && a.auto_bias) a.b = -127; /* no value is too small */
  if (o == NARROWEST && b.auto_bias) b.b = -127;
  return mptl_gemm_choose(call->compute, &a, &b, call->op->attr.groups,
                          mptl_trained_elements(call->graph, call->op));
}

/* Returns *bytes as the place of `more` bytes, and adds them. */
static size_t take(size_t *bytes, size_t more) {
  size_t at = *bytes;
  *bytes += mptl_aligned(more);
  return at;
}

/* Creates what a pass multiplies with, unless it is there. */
static mptl_status create_way(const mptl_call *call, mptl_pass pass) {
  gemm_state *s = state(call);
  const mptl_gemm_way way = s->pass[pass].way;
  if (s->pass[pass].by_dnn)
    return s->dnn[pass][way] ? MPTL_OK : create_dnn(&s->dnn[pass][way], call, pass, way);
  if (way == MPTL_GEMM_F32)
    return s->conv[pass] ? MPTL_OK : create_conv(&s->conv[pass], call, pass);
  return bf16_of(s, pass)
             ? MPTL_OK
             : create_bf16(&s->bf16[pass][way][s->pass[pass].first.terms - 1], call, pass);
}

/* Chooses how a pass multiplies its operands. If oneDNN does not support bf16 for the shape, in
 * binary32. */
static mptl_status choose(const mptl_call *call, mptl_pass pass, const mptl_rounder *first,
                          const mptl_rounder *second) {
  gemm_pass *p = &state(call)->pass[pass];
  *p = (gemm_pass){.way = choose_way(call, state(call)->outcome[pass], first, second),
                   .by_dnn = call->compute == MPTL_COMPUTE_ONEDNN};
  if (p->way != MPTL_GEMM_F32) {
    p->first = mptl_gemm_repeat(p->way, false, first->format);
    p->second = mptl_gemm_repeat(p->way, true, second->format);
  }
  mptl_status status = create_way(call, pass);
  if (status == MPTL_EUNSUPPORTED && p->way != MPTL_GEMM_F32) {
    p->way = MPTL_GEMM_F32;
    status = create_way(call, pass);
  }
  return status;
}

/* Places the memory of a pass of our own. results: as in mptl_conv_scratch_bytes. */
static void place_conv(const mptl_call *call, mptl_pass pass, size_t operand_size,
                       const mptl_sink *results, size_t *bytes) {
  gemm_pass *p = &state(call)->pass[pass];
  const mptl_conv *conv = state(call)->conv[pass];
  if (p->way != MPTL_GEMM_F32) {
    const mptl_conv_bf16 *bf16 = bf16_of(state(call), pass);
    p->packed = take(bytes, mptl_conv_bf16_packed_bytes(bf16));
    p->scratch = take(bytes, mptl_conv_bf16_scratch_bytes(bf16));
    return;
  }
  p->packed = take(bytes, mptl_conv_packed_bytes(conv));
  p->scratch = take(bytes, mptl_conv_scratch_bytes(conv, operand_size, results));
}

/* Places the weights of a pass by oneDNN and oneDNN's scratch memory. */
static void place_weights(const mptl_call *call, mptl_pass pass, size_t *bytes) {
  gemm_pass *p = &state(call)->pass[pass];
  const mptl_dnn *dnn = state(call)->dnn[pass][p->way];
  p->weights = take(bytes, mptl_gemm_weights_bytes(p->way, param_numel(call, MPTL_PRODUCT_WEIGHT)));
  p->packed = take(bytes, mptl_dnn_packed_bytes(dnn, pass));
  p->scratch = take(bytes, mptl_dnn_scratch_bytes(dnn));
}

/* Chooses how forward multiplies, and places what it needs; adds to *bytes. */
static mptl_status prepare_forward(const mptl_call *call, size_t *bytes) {
  gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  size_t block = (size_t)state(call)->block;
  MPTL_TRY(choose(call, MPTL_FORWARD, call->in[0].rounder, call->theta_rounder));
  if (!p->by_dnn) {
    place_conv(call, MPTL_FORWARD, call->in[0].size, &call->y, bytes);
    return MPTL_OK;
  }
  p->x = take(bytes, mptl_gemm_operand_bytes(&call->in[0], p->way, block * in_image(call)));
  p->results =
      take(bytes, call->y.size < sizeof(float) ? block * out_image(call) * sizeof(float) : 0);
  place_weights(call, MPTL_FORWARD, bytes);
  return MPTL_OK;
}

/* Whether both backward passes can use one converted copy of the output's gradient. */
static bool shares_dy(const gemm_state *s) {
  const gemm_pass *w = &s->pass[MPTL_BACKWARD_WEIGHTS], *d = &s->pass[MPTL_BACKWARD_DATA];
  return w->by_dnn && d->by_dnn && w->way == d->way && mptl_gemm_repeats(w->way) == 1;
}

static mptl_status prepare_weights(const mptl_call *call, size_t *bytes) {
  gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS];
  size_t block = (size_t)state(call)->block;
  MPTL_TRY(choose(call, MPTL_BACKWARD_WEIGHTS, call->in[0].rounder, call->dy.rounder));
  if (!w->by_dnn) {
    const size_t x = call->in[0].size, dy = call->dy.size;
    place_conv(call, MPTL_BACKWARD_WEIGHTS, x < dy ? x : dy, NULL, bytes);
    return MPTL_OK;
  }
  w->x = take(bytes, mptl_gemm_operand_bytes(&call->in[0], w->way, block * in_image(call)));
  w->y = take(bytes, mptl_gemm_operand_bytes(&call->dy, w->way, block * out_image(call)));
  for (int k = 0; k < call->op->n_param && (int)block < call->batch; k++)
    w->more[k] = take(bytes, param_numel(call, k) * sizeof(float));
  w->scratch = take(bytes, mptl_dnn_scratch_bytes(state(call)->dnn[MPTL_BACKWARD_WEIGHTS][w->way]));
  return MPTL_OK;
}

/* The way was chosen. */
static void place_data(const mptl_call *call, size_t *bytes) {
  gemm_pass *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  size_t block = (size_t)state(call)->block;
  if (!d->by_dnn) {
    place_conv(call, MPTL_BACKWARD_DATA, call->dy.size, &call->dx[0], bytes);
    return;
  }
  d->y = shares_dy(state(call))
             ? state(call)->pass[MPTL_BACKWARD_WEIGHTS].y
             : take(bytes, mptl_gemm_operand_bytes(&call->dy, d->way, block * out_image(call)));
  d->results =
      take(bytes, mptl_stores_floats(&call->dx[0]) ? 0 : block * in_image(call) * sizeof(float));
  place_weights(call, MPTL_BACKWARD_DATA, bytes);
}

/* The same for both backward passes. Unless they share a copy, they run one after the other, in the
 * same memory. */
static mptl_status prepare_backward(const mptl_call *call, size_t *bytes) {
  MPTL_TRY(prepare_weights(call, bytes));
  if (!mptl_wanted(&call->dx[0])) return MPTL_OK;
  MPTL_TRY(choose(call, MPTL_BACKWARD_DATA, call->dy.rounder, call->theta_rounder));
  size_t with_data = shares_dy(state(call)) ? *bytes : 0;
  place_data(call, &with_data);
  if (with_data > *bytes) *bytes = with_data;
  return MPTL_OK;
}

/* Whether the way to multiply can change from step to step. */
static bool operands_vary(const mptl_call *call) {
  return varies(call->in[0].rounder) || varies(call->theta_rounder) || varies(call->dy.rounder);
}

/* Computes the scratch memory: the largest need of forward and backward, for all choices that the
 * formats allow. */
static mptl_status prepare(const mptl_call *call, size_t *scratch_bytes) {
  gemm_state *s = state(call);
  outcome first = operands_vary(call) ? NARROWEST : BY_FORMATS,
          last = operands_vary(call) ? BINARY32 : BY_FORMATS;
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

/* Chooses again, with the present bias shifts, if the way to multiply can change. */
static mptl_status lay_out(const mptl_call *call, bool is_forward) {
  size_t bytes = 0;
  if (!operands_vary(call)) return MPTL_OK;
  return is_forward ? prepare_forward(call, &bytes) : prepare_backward(call, &bytes);
}

/* ---- Running ---- */

static void *area(const mptl_call *call, size_t offset) { return (char *)call->scratch + offset; }

/* oneDNN's operator for a pass, with its scratch memory set. */
static mptl_dnn *dnn_of(const mptl_call *call, mptl_pass pass) {
  mptl_dnn *dnn = state(call)->dnn[pass][state(call)->pass[pass].way];
  mptl_dnn_use_scratch(dnn, area(call, state(call)->pass[pass].scratch));
  return dnn;
}

/* Packs the weights for a pass, in oneDNN's order. */
static mptl_status pack_weights(const mptl_call *call, mptl_pass pass) {
  const gemm_pass *p = &state(call)->pass[pass];
  const float *weights = mptl_gemm_weights(
      mptl_threads(call), call->theta[MPTL_PRODUCT_WEIGHT], p->way, p->second,
      weights_chunk(call, pass), param_numel(call, MPTL_PRODUCT_WEIGHT), area(call, p->weights));
  return mptl_dnn_pack(dnn_of(call, pass), pass, area(call, p->packed), weights);
}

/* Packs the weights for a pass of our own. */
static void *pack_conv(const mptl_call *call, mptl_pass pass) {
  const gemm_pass *p = &state(call)->pass[pass];
  void *packed = area(call, p->packed);
  if (p->way == MPTL_GEMM_F32)
    mptl_conv_pack(state(call)->conv[pass], packed, call->theta[MPTL_PRODUCT_WEIGHT]);
  else
    mptl_conv_bf16_pack(bf16_of(state(call), pass), packed, call->theta[MPTL_PRODUCT_WEIGHT]);
  return packed;
}

/* Forward and the backward passes of our own. */
static void forward_conv(const mptl_call *call, const float *bias) {
  const gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  const void *packed = pack_conv(call, MPTL_FORWARD);
  void *scratch = area(call, p->scratch);
  if (p->way == MPTL_GEMM_F32)
    mptl_conv_forward(state(call)->conv[MPTL_FORWARD], &call->y, &call->in[0], packed, bias,
                      scratch);
  else
    mptl_conv_bf16_forward(bf16_of(state(call), MPTL_FORWARD), &call->y, &call->in[0], packed, bias,
                           scratch);
}

static void backward_data_conv(const mptl_call *call) {
  const gemm_pass *p = &state(call)->pass[MPTL_BACKWARD_DATA];
  const void *packed = pack_conv(call, MPTL_BACKWARD_DATA);
  void *scratch = area(call, p->scratch);
  if (p->way == MPTL_GEMM_F32)
    mptl_conv_backward_data(state(call)->conv[MPTL_BACKWARD_DATA], &call->dx[0], &call->dy, packed,
                            scratch);
  else
    mptl_conv_bf16_backward_data(bf16_of(state(call), MPTL_BACKWARD_DATA), &call->dx[0], &call->dy,
                                 packed, scratch);
}

static void backward_weights_conv(const mptl_call *call) {
  const gemm_pass *p = &state(call)->pass[MPTL_BACKWARD_WEIGHTS];
  float *dweights = call->dtheta[MPTL_PRODUCT_WEIGHT],
        *dbias = call->op->attr.bias ? call->dtheta[MPTL_PRODUCT_BIAS] : NULL;
  void *scratch = area(call, p->scratch);
  if (p->way == MPTL_GEMM_F32)
    mptl_conv_backward_weights(state(call)->conv[MPTL_BACKWARD_WEIGHTS], dweights, dbias,
                               &call->in[0], &call->dy, scratch);
  else
    mptl_conv_bf16_backward_weights(bf16_of(state(call), MPTL_BACKWARD_WEIGHTS), dweights, dbias,
                                    &call->in[0], &call->dy, scratch);
}

static mptl_status forward(const mptl_call *call) {
  const gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  size_t block = (size_t)state(call)->block, in = block * in_image(call),
         out = block * out_image(call);
  const float *bias = call->op->attr.bias ? call->theta[MPTL_PRODUCT_BIAS] : NULL;
  MPTL_TRY(lay_out(call, true));
  if (!p->by_dnn) {
    forward_conv(call, bias);
    return MPTL_OK;
  }
  MPTL_TRY(pack_weights(call, MPTL_FORWARD));
  for (size_t b = 0; b < (size_t)call->batch / block; b++) {
    const void *x = mptl_gemm_operand(mptl_threads(call), &call->in[0], p->way, p->first,
                                      in_chunk(call), b * in, in, area(call, p->x));
    float *results =
        call->y.size == sizeof(float) ? (float *)call->y.data + b * out : area(call, p->results);
    MPTL_TRY(mptl_dnn_forward(dnn_of(call, MPTL_FORWARD), results, x, area(call, p->packed), bias));
    mptl_write_parallel(call, &call->y, b * out, out, results);
  }
  return MPTL_OK;
}

/* y += x */
static void add(int threads, float *y, const float *x, size_t n) {
  enum { CHUNK = 16384 };
#pragma omp parallel for num_threads(threads) schedule(static) if (n > CHUNK)
  for (size_t i = 0; i < n; i += CHUNK)
    mptl_layers()->accumulate(y + i, x + i, n - i < CHUNK ? n - i : CHUNK);
}

/* The gradient of weights and bias for one block of images: stores the first block's, and adds the
 * others'. */
static mptl_status backward_theta(const mptl_call *call, size_t block, const void *x,
                                  const void *dy) {
  const gemm_pass *p = &state(call)->pass[MPTL_BACKWARD_WEIGHTS];
  mptl_dnn *dnn = dnn_of(call, MPTL_BACKWARD_WEIGHTS);
  bool bias = call->op->attr.bias, first = block == 0;
  float *dweights = first ? call->dtheta[MPTL_PRODUCT_WEIGHT] : area(call, p->more[0]),
        *dbias = NULL;
  if (bias) dbias = first ? call->dtheta[MPTL_PRODUCT_BIAS] : area(call, p->more[1]);
  MPTL_TRY(mptl_dnn_backward_weights(dnn, dweights, dbias, x, dy));
  /* If the input has two parts, the gradient is repeated beside each, so the sum for the bias is
   * twice as large. */
  for (size_t i = 0; bias && p->way != MPTL_GEMM_F32 && p->first.terms > 1 &&
                     i < param_numel(call, MPTL_PRODUCT_BIAS);
       i++)
    dbias[i] *= 0.5f;
  if (!first)
    add(mptl_threads(call), call->dtheta[MPTL_PRODUCT_WEIGHT], dweights,
        param_numel(call, MPTL_PRODUCT_WEIGHT));
  if (!first && bias)
    add(mptl_threads(call), call->dtheta[MPTL_PRODUCT_BIAS], dbias,
        param_numel(call, MPTL_PRODUCT_BIAS));
  return MPTL_OK;
}

/* The passes by oneDNN that are wanted. */
static mptl_status backward_dnn(const mptl_call *call, bool weights, bool data) {
  const gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS],
                  *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  const mptl_sink *dx = &call->dx[0];
  size_t block = (size_t)state(call)->block, in = block * in_image(call),
         out = block * out_image(call);
  if (data) MPTL_TRY(pack_weights(call, MPTL_BACKWARD_DATA));
  for (size_t b = 0; b < (size_t)call->batch / block; b++) {
    const void *dy = NULL;
    if (weights || shares_dy(state(call)))
      dy = mptl_gemm_operand(mptl_threads(call), &call->dy, w->way, w->second, out, b * out, out,
                             area(call, w->y));
    if (weights) {
      const void *x = mptl_gemm_operand(mptl_threads(call), &call->in[0], w->way, w->first, in,
                                        b * in, in, area(call, w->x));
      MPTL_TRY(backward_theta(call, b, x, dy));
    }
    if (!data) continue;
    if (!shares_dy(state(call)))
      dy = mptl_gemm_operand(mptl_threads(call), &call->dy, d->way, d->first, out_chunk(call),
                             b * out, out, area(call, d->y));
    float *results = mptl_stores_floats(dx) ? (float *)dx->data + b * in : area(call, d->results);
    MPTL_TRY(mptl_dnn_backward_data(dnn_of(call, MPTL_BACKWARD_DATA), results, dy,
                                    area(call, d->packed)));
    mptl_write_parallel(call, dx, b * in, in, results);
  }
  return MPTL_OK;
}

static mptl_status backward(const mptl_call *call) {
  const bool weights = !call->dx[0].ranging, data = mptl_wanted(&call->dx[0]);
  MPTL_TRY(lay_out(call, false));
  if (call->compute == MPTL_COMPUTE_ONEDNN) {
    if (shares_dy(state(call))) return backward_dnn(call, weights, data);
    if (weights) MPTL_TRY(backward_dnn(call, true, false));
    return data ? backward_dnn(call, false, true) : MPTL_OK;
  }
  if (weights) backward_weights_conv(call);
  if (data) backward_data_conv(call);
  return MPTL_OK;
}

const char *mptl_cpu_compute(mptl_device *device, mptl_format a, mptl_format b, int channel_groups,
                             size_t parameters, mptl_compute_setting setting) {
  (void)device;
  static const char *const names[MPTL_GEMM_WAYS] = {"f32", "bf16", "2xbf16", "4xbf16"};
  a = mptl_format_fit(a, 1);
  b = mptl_format_fit(b, 1);
  return names[mptl_gemm_choose(setting, &a, &b, channel_groups, parameters)];
}

const mptl_cpu_op mptl_cpu_conv2d = {.create = create,
                                     .destroy = destroy,
                                     .prepare = prepare,
                                     .forward = forward,
                                     .backward = backward};
const mptl_cpu_op mptl_cpu_linear = {.create = create,
                                     .destroy = destroy,
                                     .prepare = prepare,
                                     .forward = forward,
                                     .backward = backward};

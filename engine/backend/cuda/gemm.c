/* conv2d and linear: converts operands to a type that matrix units multiply; the libraries compute
 * results in binary32, and a kernel of ours rounds them once.
 *
 * Each pass uses the narrowest type in which both operands are exact: 8 bits for OCP codes, if the
 * units' sums have enough bits; bf16 for up to 8 significant bits; TF32 for up to 11; otherwise
 * binary32, or TF32 if --compute tf32 asks for it. A pass multiplies the whole batch. If channels.h
 * adds channels, they are zeros.
 */
#include <stdio.h>
#include <stdlib.h>

#include "backend/call_shapes.h"
#include "backend/cuda/channels.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/products.h"

/* A pass with the present formats. The last fields are offsets in the operator's scratch memory. */
typedef struct gemm_pass {
  mptl_cuda_pair type;
  size_t in, out;       /* channels, with those that channels.h adds */
  size_t first, second; /* converted operands */
  size_t weights;       /* weights or their gradients in binary32, without added channels */
  size_t results;       /* in binary32, before they are rounded */
  size_t workspace;     /* of the library */
} gemm_pass;

typedef struct gemm_state {
  gemm_pass pass[MPTL_PASSES];
  mptl_cuda_product *product[MPTL_PASSES][MPTL_CUDA_TYPES][MPTL_CUDA_TYPES]; /* by operand types */
  size_t bias_sums; /* scratch of the bias's gradient */
} gemm_state;

static gemm_state *state(const mptl_call *call) { return call->state; }

static mptl_cuda_device *device(const mptl_call *call) { return mptl_cuda_of(call); }
static mptl_cuda_stream stream(const mptl_call *call) { return mptl_cuda_stream_of(call); }

/* ---- Shapes ---- */

static size_t in_channels(const mptl_call *call) { return (size_t)mptl_call_input(call, 0).c; }
static size_t out_channels(const mptl_call *call) { return (size_t)mptl_call_output(call).c; }
static size_t in_pixels(const mptl_call *call) {
  return mptl_batch_numel(call, call->op->in[0]) / in_channels(call);
}
static size_t out_pixels(const mptl_call *call) {
  return mptl_batch_numel(call, call->op->out) / out_channels(call);
}
static size_t weights_numel(const mptl_call *call) {
  return call->graph->params[call->op->first_param].numel;
}

static mptl_cuda_weights weights_shape(const mptl_call *call) {
  mptl_shape in = mptl_call_input(call, 0), out = mptl_call_output(call);
  const mptl_attributes *a = &call->op->attr;
  if (out.ndim == 1)
    return (mptl_cuda_weights){
        .k = (size_t)out.c, .c = (size_t)in.c, .s = (size_t)in.h * (size_t)in.w};
  return (mptl_cuda_weights){.k = (size_t)out.c,
                             .c = (size_t)(in.c / a->groups),
                             .s = (size_t)a->kernel[0] * (size_t)a->kernel[1]};
}

/* Elements of a pass's input, output and weights, with added channels. */
static size_t in_numel(const mptl_call *call, const gemm_pass *p) {
  return in_pixels(call) * p->in;
}
static size_t out_numel(const mptl_call *call, const gemm_pass *p) {
  return out_pixels(call) * p->out;
}
static size_t filters_numel(const mptl_call *call, const gemm_pass *p) {
  return weights_shape(call).s * (p->in / (size_t)call->op->attr.groups) * p->out;
}

/* Whether channels are added to a pass. */
static bool is_filled_up(const mptl_call *call, const gemm_pass *p) {
  return p->in != in_channels(call) || p->out != out_channels(call);
}

static mptl_call_shape shape_of(const mptl_call *call, mptl_cuda_pair t) {
  mptl_call_shape s =
      mptl_call_shape_of(call, call->batch, mptl_call_input(call, 0).c, mptl_call_output(call).c);
  if (!s.is_linear) s.conv = mptl_cuda_filled_up(s.conv, t.first, t.second);
  return s;
}

/* ---- Products ---- */

static mptl_cuda_product **product_of(const mptl_call *call, mptl_pass pass) {
  mptl_cuda_pair t = state(call)->pass[pass].type;
  return &state(call)->product[pass][t.first][t.second];
}

static mptl_status try_types(const mptl_call *call, mptl_pass pass, mptl_cuda_pair t) {
  mptl_call_shape s = shape_of(call, t);
  gemm_pass *p = &state(call)->pass[pass];
  *p = (gemm_pass){.type = t, .in = in_channels(call), .out = out_channels(call)};
  if (!s.is_linear) p->in = (size_t)s.conv.ic, p->out = (size_t)s.conv.oc;
  mptl_cuda_product **product = product_of(call, pass);
  if (*product != NULL) return MPTL_OK;
  return s.is_linear ? mptl_cuda_product_linear(product, device(call), &s.linear, pass, t)
                     : mptl_cuda_product_conv(product, device(call), &s.conv, pass, t);
}

/* Chooses the types of a pass, and makes its product. */
static mptl_status choose(const mptl_call *call, mptl_pass pass) {
  mptl_cuda_choices c = mptl_cuda_choices_of(call, pass);
  mptl_status status = MPTL_EUNSUPPORTED;
  for (int i = 0; i < c.n && status == MPTL_EUNSUPPORTED; i++)
    status = try_types(call, pass, c.pairs[i]);
  return status;
}

static bool has_pass(const mptl_call *call, mptl_pass pass) {
  return pass == MPTL_FORWARD ||
         (call->train && (pass == MPTL_BACKWARD_WEIGHTS || call->dx[0].wanted));
}

enum { MOST_WANTED = MPTL_PASSES * sizeof((mptl_cuda_choices){0}.pairs) / sizeof(mptl_cuda_pair) };

/* Lists the passes of a convolution that have no product in their best types yet, once for each
 * number of channels. Returns the length of the list. */
static size_t list_wanted(mptl_cuda_announced list[MOST_WANTED], const mptl_call *call) {
  size_t n = 0;
  for (int p = MPTL_FORWARD; p < MPTL_PASSES; p++) {
    const mptl_pass pass = (mptl_pass)p;
    mptl_cuda_choices c = mptl_cuda_choices_of(call, pass);
    if (!has_pass(call, pass) ||
        state(call)->product[pass][c.pairs[0].first][c.pairs[0].second] != NULL)
      continue;
    for (int i = 0; i < c.n; i++) {
      mptl_conv_shape s = shape_of(call, c.pairs[i]).conv;
      if (i == 0 || list[n - 1].shape.ic != s.ic || list[n - 1].shape.oc != s.oc)
        list[n++] = (mptl_cuda_announced){.shape = s, .pass = pass};
      list[n - 1].choices.pairs[list[n - 1].choices.n++] = c.pairs[i];
    }
  }
  return n;
}

void mptl_cuda_expect(mptl_device *d, const mptl_member *members, int n) {
  size_t count = 0;
  mptl_cuda_announced *list = calloc((size_t)n * MOST_WANTED, sizeof *list);
  for (int i = 0; i < n && list != NULL; i++) {
    mptl_call call;
    if (members[i].is->op->kind->id != MPTL_OP_CONV2D) continue;
    mptl_call_of(&call, &members[i], NULL, NULL);
    count += list_wanted(list + count, &call);
  }
  if (count > 0) mptl_cuda_products_announce(mptl_cuda(d), list, count);
  free(list);
}

/* ---- Scratch memory ---- */

static size_t take(size_t *bytes, size_t n) {
  size_t at = *bytes;
  *bytes += mptl_cuda_aligned(n);
  return at;
}

/* The form in which kernels write an operand: codes, bf16 or binary32, which TF32 units read,
 * too. */
static mptl_cuda_cast_type cast_type(mptl_cuda_type type) {
  if (mptl_cuda_type_size(type) == 1) return MPTL_CUDA_CAST_CODE8;
  return type == MPTL_CUDA_BF16 ? MPTL_CUDA_CAST_BF16 : MPTL_CUDA_CAST_F32;
}

/* Whether units can read a value where it is: it is stored in binary32, or in codes of the type. */
static bool as_it_is(const mptl_source *s, mptl_cuda_type type) {
  return type != MPTL_CUDA_BF16 && s->size == mptl_cuda_type_size(type);
}

static size_t operand_bytes(const mptl_source *s, mptl_cuda_type type, size_t n) {
  return as_it_is(s, type) ? 0 : n * mptl_cuda_type_size(type);
}

/* Whether a product can write its results, of `channels` channels, to the sink's memory, of c
 * channels. */
static bool in_place(const mptl_sink *sink, size_t channels, size_t c) {
  /* A sink stores nothing while its range is found. */
  bool fits = sink->wanted && sink->rounder->format.auto_bias;
  return sink->size == sizeof(float) && !sink->accumulate && !fits && channels == c;
}

static size_t weights_bytes(const mptl_call *call, const gemm_pass *p) {
  return is_filled_up(call, p) ? weights_numel(call) * sizeof(float) : 0;
}

/* Whether both backward passes use the same converted copy of the output's gradient. */
static bool share_gradient(const mptl_call *call) {
  const gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS],
                  *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  return d->type.first == w->type.second && d->out == w->out;
}

static size_t workspace_bytes(const mptl_call *call, mptl_pass pass) {
  return mptl_cuda_product_workspace_bytes(*product_of(call, pass));
}

bool mptl_cuda_product_way(mptl_device *d, mptl_product_way *way, const mptl_member *member,
                           int pass) {
  mptl_call whole, *call = &whole;
  mptl_op_id id = member->is->op->kind->id;
  (void)d;
  mptl_call_of(call, member, NULL, NULL);
  if ((id != MPTL_OP_CONV2D && id != MPTL_OP_LINEAR) || !has_pass(call, (mptl_pass)pass))
    return false;
  mptl_cuda_pair t = state(call)->pass[pass].type;
  snprintf(way->type, sizeof way->type, "%s%s%s", mptl_cuda_type_name(t.first),
           t.first == t.second ? "" : " by ",
           t.first == t.second ? "" : mptl_cuda_type_name(t.second));
  snprintf(way->engine, sizeof way->engine, "%s",
           mptl_cuda_product_engine(*product_of(call, (mptl_pass)pass)));
  way->workspace_bytes = workspace_bytes(call, (mptl_pass)pass);
  return true;
}

static mptl_status prepare_forward(const mptl_call *call, size_t *bytes) {
  gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  MPTL_TRY(choose(call, MPTL_FORWARD));
  p->first = take(bytes, operand_bytes(&call->in[0], p->type.first, in_numel(call, p)));
  p->second = take(bytes, filters_numel(call, p) * mptl_cuda_type_size(p->type.second));
  p->weights = take(bytes, weights_bytes(call, p));
  p->results =
      take(bytes,
           in_place(&call->y, p->out, out_channels(call)) ? 0 : out_numel(call, p) * sizeof(float));
  p->workspace = take(bytes, workspace_bytes(call, MPTL_FORWARD));
  return MPTL_OK;
}

/* The two passes run one after the other and use the same memory, except for the output's gradient
 * if they share it. */
static mptl_status prepare_backward(const mptl_call *call, size_t *bytes) {
  gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS],
            *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  size_t begin, end;
  MPTL_TRY(choose(call, MPTL_BACKWARD_WEIGHTS));
  w->second = take(bytes, operand_bytes(&call->dy, w->type.second, out_numel(call, w)));
  begin = *bytes;
  w->first = take(bytes, operand_bytes(&call->in[0], w->type.first, in_numel(call, w)));
  w->results = take(bytes, filters_numel(call, w) * sizeof(float));
  w->weights = take(bytes, weights_bytes(call, w));
  w->workspace = take(bytes, workspace_bytes(call, MPTL_BACKWARD_WEIGHTS));
  if (call->op->attr.bias)
    state(call)->bias_sums =
        take(bytes, mptl_cuda_bias_gradient_scratch(out_pixels(call), out_channels(call)));
  if (!has_pass(call, MPTL_BACKWARD_DATA)) return MPTL_OK;
  MPTL_TRY(choose(call, MPTL_BACKWARD_DATA));
  end = begin;
  d->first = share_gradient(call)
                 ? w->second
                 : take(&end, operand_bytes(&call->dy, d->type.first, out_numel(call, d)));
  d->second = take(&end, filters_numel(call, d) * mptl_cuda_type_size(d->type.second));
  d->weights = take(&end, weights_bytes(call, d));
  d->results = take(&end, in_place(&call->dx[0], d->in, in_channels(call))
                              ? 0
                              : in_numel(call, d) * sizeof(float));
  d->workspace = take(&end, workspace_bytes(call, MPTL_BACKWARD_DATA));
  if (end > *bytes) *bytes = end;
  return MPTL_OK;
}

static mptl_status prepare(const mptl_call *call, size_t *scratch_bytes) {
  size_t forward = 0, backward = 0;
  MPTL_TRY(prepare_forward(call, &forward));
  if (call->train) MPTL_TRY(prepare_backward(call, &backward));
  *scratch_bytes = forward > backward ? forward : backward;
  return MPTL_OK;
}

/* ---- Running ---- */

static void *area(const mptl_call *call, size_t offset) {
  return mptl_cuda_address(device(call), (char *)call->scratch + offset);
}

/* Sets *p to a value in the form that a pass multiplies: where the value is, or a copy with `wide`
 * channels at offset in scratch memory, which is made if `convert` is set. */
static mptl_status operand(const void **p, const mptl_call *call, const mptl_source *s,
                           mptl_cuda_type type, size_t pixels, size_t c, size_t wide, size_t offset,
                           bool convert) {
  *p = as_it_is(s, type) ? s->data : area(call, offset);
  if (as_it_is(s, type) || !convert) return MPTL_OK;
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_cast_rows(area(call, offset), cast_type(type), s,
                                                            pixels, c, wide, stream(call)));
}

static mptl_status input(const void **x, const mptl_call *call, const gemm_pass *p) {
  return operand(x, call, &call->in[0], p->type.first, in_pixels(call), in_channels(call), p->in,
                 p->first, true);
}

/* Rounds the weights into the libraries' order and the type of a pass. */
static mptl_status pack_weights(const mptl_call *call, const gemm_pass *p) {
  mptl_cuda_weights shape = weights_shape(call);
  mptl_cuda_cast_type type = cast_type(p->type.second);
  if (!is_filled_up(call, p))
    return MPTL_CUDA_LAUNCH(
        device(call),
        mptl_cuda_round_weights(area(call, p->second), type, &call->weights, shape, stream(call)));
  mptl_source own = {.data = area(call, p->weights), .size = sizeof(float)};
  size_t size = mptl_cuda_type_size(p->type.second), rows = shape.k * shape.s;
  /* In bytes; the number of channels is even. */
  size_t there = rows * p->in * size, others = filters_numel(call, p) * size - there;
  MPTL_TRY(MPTL_CUDA_LAUNCH(device(call),
                            mptl_cuda_round_weights(area(call, p->weights), MPTL_CUDA_CAST_F32,
                                                    &call->weights, shape, stream(call))));
  MPTL_TRY(MPTL_CUDA_LAUNCH(device(call), mptl_cuda_cast_rows(area(call, p->second), type, &own,
                                                              rows, shape.c, p->in, stream(call))));
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_fill(area(call, p->second + there), 0.0f,
                                                       others / sizeof(float), stream(call)));
}

/* Copies the gradients of the weights from the results of a pass. */
static mptl_status unpack_gradients(const mptl_call *call, const gemm_pass *p) {
  mptl_cuda_weights shape = weights_shape(call);
  size_t from = p->results;
  if (is_filled_up(call, p)) {
    mptl_sink own = {.data = area(call, p->weights), .size = sizeof(float)};
    size_t rows = shape.k * shape.s;
    from = p->weights;
    MPTL_TRY(
        MPTL_CUDA_LAUNCH(device(call), mptl_cuda_write_rows(&own, area(call, p->results), rows,
                                                            p->in, NULL, shape.c, stream(call))));
  }
  return MPTL_CUDA_LAUNCH(
      device(call), mptl_cuda_unpack_weights(call->dtheta[MPTL_PRODUCT_WEIGHT], area(call, from),
                                             shape, stream(call)));
}

static mptl_status multiply(const mptl_call *call, mptl_pass pass, float *result, const void *first,
                            const void *second) {
  const gemm_pass *p = &state(call)->pass[pass];
  return mptl_cuda_product_run(*product_of(call, pass), result, first, second,
                               area(call, p->workspace));
}

static mptl_status forward(const mptl_call *call) {
  const gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  const void *x;
  size_t channels = out_channels(call);
  const float *bias = call->op->attr.bias ? call->theta[MPTL_PRODUCT_BIAS] : NULL;
  float *results = in_place(&call->y, p->out, channels) ? call->y.data : area(call, p->results);
  MPTL_TRY(pack_weights(call, p));
  MPTL_TRY(input(&x, call, p));
  MPTL_TRY(multiply(call, MPTL_FORWARD, results, x, area(call, p->second)));
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_write_rows(&call->y, results, out_pixels(call),
                                                             p->out, bias, channels, stream(call)));
}

static mptl_status backward_theta(const mptl_call *call) {
  const gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS];
  size_t channels = out_channels(call), pixels = out_pixels(call);
  const void *x, *dy;
  MPTL_TRY(input(&x, call, w));
  MPTL_TRY(
      operand(&dy, call, &call->dy, w->type.second, pixels, channels, w->out, w->second, true));
  MPTL_TRY(multiply(call, MPTL_BACKWARD_WEIGHTS, area(call, w->results), x, dy));
  MPTL_TRY(unpack_gradients(call, w));
  if (!call->op->attr.bias) return MPTL_OK;
  return MPTL_CUDA_LAUNCH(
      device(call),
      mptl_cuda_bias_gradient(call->dtheta[MPTL_PRODUCT_BIAS], &call->dy, pixels, channels,
                              area(call, state(call)->bias_sums), stream(call)));
}

static mptl_status backward(const mptl_call *call) {
  const gemm_pass *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  MPTL_TRY(backward_theta(call));
  if (!call->dx[0].wanted) return MPTL_OK;
  const void *dy;
  size_t channels = in_channels(call);
  float *results =
      in_place(&call->dx[0], d->in, channels) ? call->dx[0].data : area(call, d->results);
  MPTL_TRY(pack_weights(call, d));
  MPTL_TRY(operand(&dy, call, &call->dy, d->type.first, out_pixels(call), out_channels(call),
                   d->out, d->first, !share_gradient(call)));
  MPTL_TRY(multiply(call, MPTL_BACKWARD_DATA, results, dy, area(call, d->second)));
  return MPTL_CUDA_LAUNCH(device(call), mptl_cuda_write_rows(&call->dx[0], results, in_pixels(call),
                                                             d->in, NULL, channels, stream(call)));
}

/* ---- The rows of the table ---- */

static mptl_status create(void **state_of_call, const mptl_call *call) {
  (void)call;
  *state_of_call = calloc(1, sizeof(gemm_state));
  return *state_of_call ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory");
}

static void destroy(void *state_of_call) {
  gemm_state *s = state_of_call;
  if (s == NULL) return;
  for (int pass = 0; pass < MPTL_PASSES; pass++)
    for (int first = 0; first < MPTL_CUDA_TYPES; first++)
      for (int second = 0; second < MPTL_CUDA_TYPES; second++)
        mptl_cuda_product_destroy(s->product[pass][first][second]);
  free(s);
}

const mptl_cuda_row mptl_cuda_op_conv2d = {.create = create,
                                           .destroy = destroy,
                                           .prepare = prepare,
                                           .forward = forward,
                                           .backward = backward};
const mptl_cuda_row mptl_cuda_op_linear = {.create = create,
                                           .destroy = destroy,
                                           .prepare = prepare,
                                           .forward = forward,
                                           .backward = backward};

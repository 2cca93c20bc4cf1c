/* conv2d and linear: operands decoded to what the units multiply, results in binary32, rounded once by our kernel.
 *
 * Each pass multiplies in the narrowest type in which the formats of its two operands, and so their products, are exact: 8 bits for codes
 * that are OCP's, where the sums are good enough, bf16 for up to 8 significant bits, TF32 for up to 11, else binary32; unless TF32 is asked
 * for in its place (--compute tf32). A pass works on the whole batch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/call_shapes.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/products.h"

/* What a pass works with, for the formats of now; addresses are offsets in the operator's scratch memory. */
typedef struct gemm_pass {
  mptl_cuda_pair type;
  size_t first, second; /* its operands, where they are not taken as they are in memory */
  size_t results;       /* in binary32, on their way to a value in another form */
  size_t workspace;     /* the library's */
} gemm_pass;

typedef struct gemm_state {
  gemm_pass pass[MPTL_PASSES];
  mptl_cuda_product *product[MPTL_PASSES][MPTL_CUDA_TYPES][MPTL_CUDA_TYPES]; /* by operands' types; made when first needed */
  size_t bias_sums;                                                          /* scratch for the gradient of the bias */
} gemm_state;

static gemm_state *state(const mptl_call *call) { return call->state; }

static mptl_cuda_stream stream(void) { return mptl_cuda_runtime_stream(); }

/* ---- Shapes ---- */

static size_t in_numel(const mptl_call *call) { return mptl_batch_numel(call, call->op->in[0]); }
static size_t out_numel(const mptl_call *call) { return mptl_batch_numel(call, call->op->out); }
static size_t weights_numel(const mptl_call *call) { return call->graph->params[call->op->first_param].numel; }

static mptl_cuda_weights weights_shape(const mptl_call *call) {
  mptl_shape in = mptl_call_input_shape(call), out = mptl_cuda_out_shape(call);
  const mptl_attributes *a = &call->op->attr;
  if (out.ndim == 1) return (mptl_cuda_weights){.k = (size_t)out.c, .c = (size_t)in.c, .s = (size_t)in.h * (size_t)in.w};
  return (mptl_cuda_weights){
      .k = (size_t)out.c, .c = (size_t)(in.c / a->groups), .s = (size_t)a->kernel[0] * (size_t)a->kernel[1]};
}

static mptl_status create_product(mptl_cuda_product **product, const mptl_call *call, mptl_pass pass, mptl_cuda_pair t) {
  mptl_call_shape s = mptl_call_shape_of(call, call->batch, mptl_call_input_shape(call).c, mptl_cuda_out_shape(call).c);
  return s.is_linear ? mptl_cuda_product_linear(product, &s.linear, pass, t) : mptl_cuda_product_conv(product, &s.conv, pass, t);
}

/* ---- Products ---- */

static mptl_cuda_product **product_of(const mptl_call *call, mptl_pass pass) {
  mptl_cuda_pair t = state(call)->pass[pass].type;
  return &state(call)->product[pass][t.first][t.second];
}

static mptl_status try_types(mptl_call *call, mptl_pass pass, mptl_cuda_pair t) {
  state(call)->pass[pass] = (gemm_pass){.type = t};
  mptl_cuda_product **product = product_of(call, pass);
  return *product != NULL ? MPTL_OK : create_product(product, call, pass, t);
}

/* The types and the product of a pass. */
static mptl_status choose(mptl_call *call, mptl_pass pass) {
  mptl_cuda_choices c = mptl_cuda_choices_of(call, pass);
  mptl_status status = MPTL_EUNSUPPORTED;
  for (int i = 0; i < c.n && status == MPTL_EUNSUPPORTED; i++) status = try_types(call, pass, c.pairs[i]);
  return status;
}

static bool has_pass(const mptl_call *call, mptl_pass pass) {
  return pass == MPTL_FORWARD || (call->train && (pass == MPTL_BACKWARD_WEIGHTS || call->dx[0].wanted));
}

/* Lists the passes of a convolution that have no product in their best types yet; returns how many. */
static size_t list_wanted(mptl_cuda_wanted list[MPTL_PASSES], const mptl_call *call) {
  mptl_call_shape s = mptl_call_shape_of(call, call->batch, mptl_call_input_shape(call).c, mptl_cuda_out_shape(call).c);
  size_t n = 0;
  for (int pass = 0; pass < MPTL_PASSES && !s.is_linear; pass++) {
    mptl_cuda_choices c = mptl_cuda_choices_of(call, (mptl_pass)pass);
    if (has_pass(call, (mptl_pass)pass) && state(call)->product[pass][c.pairs[0].first][c.pairs[0].second] == NULL)
      list[n++] = (mptl_cuda_wanted){.shape = s.conv, .pass = (mptl_pass)pass, .choices = c};
  }
  return n;
}

void mptl_cuda_expect(mptl_call *const *calls, int n) {
  size_t count = 0;
  mptl_cuda_wanted *list = calloc((size_t)n * MPTL_PASSES, sizeof *list);
  for (int i = 0; i < n && list != NULL; i++)
    if (strcmp(calls[i]->op->kind->name, mptl_cuda_conv2d.kind) == 0) count += list_wanted(list + count, calls[i]);
  if (count > 0) mptl_cuda_products_expect(list, count);
  free(list);
}

/* ---- Scratch memory ---- */

static size_t take(size_t *bytes, size_t n) {
  size_t at = *bytes;
  *bytes += mptl_cuda_aligned(n);
  return at;
}

/* What the kernels write for the units: codes, bf16, or binary32, which TF32 units take as well. */
static mptl_cuda_cast_type cast_type(mptl_cuda_type type) {
  if (mptl_cuda_type_size(type) == 1) return MPTL_CUDA_CAST_CODE8;
  return type == MPTL_CUDA_BF16 ? MPTL_CUDA_CAST_BF16 : MPTL_CUDA_CAST_F32;
}

/* Whether a value is in memory as the units take it: in binary32, or in codes. */
static bool as_it_is(const mptl_source *s, mptl_cuda_type type) {
  return type != MPTL_CUDA_BF16 && s->size == mptl_cuda_type_size(type);
}

static size_t operand_bytes(const mptl_source *s, mptl_cuda_type type, size_t n) {
  return as_it_is(s, type) ? 0 : n * mptl_cuda_type_size(type);
}

/* Whether results can be made where they will be stored. */
static bool in_place(const mptl_sink *sink) { return sink->size == sizeof(float) && !sink->accumulate && !mptl_fits(sink); }

static size_t results_bytes(const mptl_sink *sink, size_t n) { return in_place(sink) ? 0 : n * sizeof(float); }

static size_t workspace_bytes(const mptl_call *call, mptl_pass pass) {
  return mptl_cuda_product_workspace_bytes(*product_of(call, pass));
}

bool mptl_cuda_product_way(mptl_product_way *way, const mptl_call *call, int pass) {
  const char *kind = call->op->kind->name;
  bool multiplies = strcmp(kind, mptl_cuda_conv2d.kind) == 0 || strcmp(kind, mptl_cuda_linear_layer.kind) == 0;
  if (!multiplies || !has_pass(call, (mptl_pass)pass)) return false;
  mptl_cuda_pair t = state(call)->pass[pass].type;
  snprintf(way->type, sizeof way->type, "%s%s%s", mptl_cuda_type_name(t.first), t.first == t.second ? "" : " by ",
           t.first == t.second ? "" : mptl_cuda_type_name(t.second));
  snprintf(way->engine, sizeof way->engine, "%s", mptl_cuda_product_engine(*product_of(call, (mptl_pass)pass)));
  way->workspace_bytes = workspace_bytes(call, (mptl_pass)pass);
  return true;
}

static mptl_status prepare_forward(mptl_call *call, size_t *bytes) {
  gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  MPTL_TRY(choose(call, MPTL_FORWARD));
  p->first = take(bytes, operand_bytes(&call->in[0], p->type.first, in_numel(call)));
  p->second = take(bytes, weights_numel(call) * mptl_cuda_type_size(p->type.second));
  p->results = take(bytes, results_bytes(&call->y, out_numel(call)));
  p->workspace = take(bytes, workspace_bytes(call, MPTL_FORWARD));
  return MPTL_OK;
}

/* The two passes run one after the other, over the same memory, but for the gradient of the output where both take the same copy. */
static mptl_status prepare_backward(mptl_call *call, size_t *bytes) {
  gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS], *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  size_t channels = (size_t)mptl_cuda_out_shape(call).c, weights = weights_numel(call), begin, end;
  MPTL_TRY(choose(call, MPTL_BACKWARD_WEIGHTS));
  w->second = take(bytes, operand_bytes(&call->dy, w->type.second, out_numel(call)));
  begin = *bytes;
  w->first = take(bytes, operand_bytes(&call->in[0], w->type.first, in_numel(call)));
  w->results = take(bytes, weights * sizeof(float));
  w->workspace = take(bytes, workspace_bytes(call, MPTL_BACKWARD_WEIGHTS));
  if (call->op->attr.bias)
    state(call)->bias_sums = take(bytes, mptl_cuda_bias_gradient_scratch(out_numel(call) / channels, channels));
  if (!has_pass(call, MPTL_BACKWARD_DATA)) return MPTL_OK;
  MPTL_TRY(choose(call, MPTL_BACKWARD_DATA));
  end = begin;
  d->first = d->type.first == w->type.second ? w->second : take(&end, operand_bytes(&call->dy, d->type.first, out_numel(call)));
  d->second = take(&end, weights * mptl_cuda_type_size(d->type.second));
  d->results = take(&end, results_bytes(&call->dx[0], in_numel(call)));
  d->workspace = take(&end, workspace_bytes(call, MPTL_BACKWARD_DATA));
  if (end > *bytes) *bytes = end;
  return MPTL_OK;
}

static mptl_status prepare(mptl_call *call, size_t *scratch_bytes) {
  size_t forward = 0, backward = 0;
  MPTL_TRY(prepare_forward(call, &forward));
  if (call->train) MPTL_TRY(prepare_backward(call, &backward));
  *scratch_bytes = forward > backward ? forward : backward;
  return MPTL_OK;
}

/* ---- Running ---- */

static void *area(const mptl_call *call, size_t offset) { return mptl_cuda_address((char *)call->scratch + offset); }

/* A value as a pass multiplies it: where it is, or in the scratch memory at offset, where it is put if `convert` is set. */
static mptl_status operand(const void **p, const mptl_call *call, const mptl_source *s, mptl_cuda_type type, size_t n,
                           size_t offset, bool convert) {
  mptl_cuda_source source = mptl_cuda_source_of(s);
  *p = as_it_is(s, type) ? source.data : area(call, offset);
  if (as_it_is(s, type) || !convert) return MPTL_OK;
  return MPTL_CUDA_LAUNCH(mptl_cuda_cast(area(call, offset), cast_type(type), &source, 0, n, stream()));
}

/* The weights, rounded, as a pass multiplies them, in the libraries' order. */
static mptl_status pack_weights(const mptl_call *call, const gemm_pass *p) {
  mptl_cuda_rounding weights = mptl_cuda_rounding_of(&call->weights);
  return MPTL_CUDA_LAUNCH(
      mptl_cuda_round_weights(area(call, p->second), cast_type(p->type.second), &weights, weights_shape(call), stream()));
}

static mptl_status multiply(const mptl_call *call, mptl_pass pass, float *result, const void *first, const void *second) {
  const gemm_pass *p = &state(call)->pass[pass];
  return mptl_cuda_product_run(*product_of(call, pass), result, first, second, area(call, p->workspace));
}

static mptl_status forward(mptl_call *call) {
  const gemm_pass *p = &state(call)->pass[MPTL_FORWARD];
  const void *x;
  mptl_cuda_sink y = mptl_cuda_sink_of(&call->y);
  const float *bias = call->op->attr.bias ? mptl_cuda_address(call->theta[1]) : NULL;
  float *results = in_place(&call->y) ? y.data : area(call, p->results);
  MPTL_TRY(pack_weights(call, p));
  MPTL_TRY(operand(&x, call, &call->in[0], p->type.first, in_numel(call), p->first, true));
  MPTL_TRY(multiply(call, MPTL_FORWARD, results, x, area(call, p->second)));
  return MPTL_CUDA_LAUNCH(mptl_cuda_write(&y, results, out_numel(call), bias, (size_t)mptl_cuda_out_shape(call).c, stream()));
}

static mptl_status backward_theta(mptl_call *call) {
  const gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS];
  size_t channels = (size_t)mptl_cuda_out_shape(call).c;
  const void *x, *dy;
  MPTL_TRY(operand(&x, call, &call->in[0], w->type.first, in_numel(call), w->first, true));
  MPTL_TRY(operand(&dy, call, &call->dy, w->type.second, out_numel(call), w->second, true));
  MPTL_TRY(multiply(call, MPTL_BACKWARD_WEIGHTS, area(call, w->results), x, dy));
  MPTL_TRY(MPTL_CUDA_LAUNCH(
      mptl_cuda_unpack_weights(mptl_cuda_address(call->dtheta[0]), area(call, w->results), weights_shape(call), stream())));
  if (!call->op->attr.bias) return MPTL_OK;
  mptl_cuda_source source = mptl_cuda_source_of(&call->dy);
  return MPTL_CUDA_LAUNCH(mptl_cuda_bias_gradient(mptl_cuda_address(call->dtheta[1]), &source, out_numel(call) / channels,
                                                  channels, area(call, state(call)->bias_sums), stream()));
}

static mptl_status backward(mptl_call *call) {
  const gemm_pass *w = &state(call)->pass[MPTL_BACKWARD_WEIGHTS], *d = &state(call)->pass[MPTL_BACKWARD_DATA];
  MPTL_TRY(backward_theta(call));
  if (!call->dx[0].wanted) return MPTL_OK;
  const void *dy;
  mptl_cuda_sink dx = mptl_cuda_sink_of(&call->dx[0]);
  float *results = in_place(&call->dx[0]) ? dx.data : area(call, d->results);
  MPTL_TRY(pack_weights(call, d));
  MPTL_TRY(operand(&dy, call, &call->dy, d->type.first, out_numel(call), d->first, d->type.first != w->type.second));
  MPTL_TRY(multiply(call, MPTL_BACKWARD_DATA, results, dy, area(call, d->second)));
  return MPTL_CUDA_LAUNCH(mptl_cuda_write(&dx, results, in_numel(call), NULL, 1, stream()));
}

/* ---- The rows of the table ---- */

static mptl_status create(mptl_call *call) {
  call->state = calloc(1, sizeof(gemm_state));
  return call->state ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory");
}

static void destroy(mptl_call *call) {
  if (call->state == NULL) return;
  for (int pass = 0; pass < MPTL_PASSES; pass++)
    for (int first = 0; first < MPTL_CUDA_TYPES; first++)
      for (int second = 0; second < MPTL_CUDA_TYPES; second++)
        mptl_cuda_product_destroy(state(call)->product[pass][first][second]);
  free(call->state);
  call->state = NULL;
}

const mptl_cuda_kind_row mptl_cuda_conv2d = {
    .kind = "conv2d", .create = create, .destroy = destroy, .prepare = prepare, .forward = forward, .backward = backward};
const mptl_cuda_kind_row mptl_cuda_linear_layer = {
    .kind = "linear", .create = create, .destroy = destroy, .prepare = prepare, .forward = forward, .backward = backward};

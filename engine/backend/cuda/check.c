/* Checks a pass on the device. */
#include "backend/cuda/check.h"

#include <stdio.h>

#include "backend/cuda/check_numbers.h"
#include "kernels/cuda/kernels.h"
#include "mptl/format.h"
#include "mptl/round.h"

#ifdef MPTL_CUDA_CHECKS

enum { ALIGN = 256 };

/* The arrays of a check, in one allocation. */
enum { FIRST, SECOND, RESULT, AGAIN, WORKSPACE, VERDICT, ARRAYS };

typedef struct check {
  const mptl_cuda_checked *of;
  size_t n[ARRAYS], bytes[ARRAYS]; /* elements of operands and results */
  char *at[ARRAYS];
  cudaEvent_t begin, end;
} check;

static mptl_status cuda(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return MPTL_OK;
  cudaGetLastError(); /* so that the next launch does not report it again */
  return mptl_fail(error == cudaErrorMemoryAllocation ? MPTL_ENOMEM : MPTL_EBACKEND, "%s: %s", what,
                   cudaGetErrorString(error));
}

static void size_arrays(check *c) {
  const mptl_pass_arrays arrays = mptl_arrays_of(c->of->pass);
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(c->of->shape);
  c->n[FIRST] = sizes.n[arrays.first];
  c->n[SECOND] = sizes.n[arrays.second];
  c->n[RESULT] = c->n[AGAIN] = sizes.n[arrays.result];
  c->bytes[FIRST] = c->n[FIRST] * mptl_cuda_type_size(c->of->first);
  c->bytes[SECOND] = c->n[SECOND] * mptl_cuda_type_size(c->of->second);
  c->bytes[RESULT] = c->bytes[AGAIN] = c->n[RESULT] * sizeof(float);
  c->bytes[WORKSPACE] = c->of->workspace_bytes;
  c->bytes[VERDICT] = sizeof(mptl_cuda_verdict);
}

static mptl_status allocate(check *c) {
  size_t offsets[ARRAYS], all = 0;
  char *base = NULL, what[64];
  for (int i = 0; i < ARRAYS; i++)
    offsets[i] = all, all += (c->bytes[i] + ALIGN - 1) / ALIGN * ALIGN;
  snprintf(what, sizeof what, "checking it in %zu bytes", all);
  MPTL_TRY(cuda(cudaMalloc((void **)&base, all), what));
  for (int i = 0; i < ARRAYS; i++) c->at[i] = base + offsets[i];
  return MPTL_OK;
}

/* The rounder of a type's codes; NULL: the type is binary32. */
static const mptl_rounder *init_codes(mptl_rounder *rounder, mptl_cuda_type type) {
  static const char *const names[MPTL_CUDA_TYPES] = {
      [MPTL_CUDA_BF16] = "bf16", [MPTL_CUDA_E4M3] = "fp8_e4m3fn", [MPTL_CUDA_E5M2] = "fp8_e5m2"};
  mptl_format format;
  if (names[type] == NULL || mptl_format_parse(&format, names[type]) != MPTL_OK) return NULL;
  mptl_rounder_init(rounder, format, MPTL_NEAREST_EVEN, MPTL_SATURATE);
  return rounder;
}

static mptl_cuda_sums sums_of(const mptl_cuda_checked *c) {
  const mptl_conv_shape *s = c->shape;
  return (mptl_cuda_sums){(int)c->pass,       (uint32_t)s->n,  (uint32_t)s->ic, (uint32_t)s->ih,
                          (uint32_t)s->iw,    (uint32_t)s->oc, (uint32_t)s->oh, (uint32_t)s->ow,
                          (uint32_t)s->kh,    (uint32_t)s->kw, (uint32_t)s->sh, (uint32_t)s->sw,
                          (uint32_t)s->ph,    (uint32_t)s->pw, (uint32_t)s->dh, (uint32_t)s->dw,
                          (uint32_t)s->groups};
}

static mptl_status fill(const check *c, int operand, const mptl_rounder *codes,
                        const mptl_whole *numbers) {
  mptl_sink sink = {
      .data = c->at[operand], .size = c->bytes[operand] / c->n[operand], .rounder = codes};
  return cuda((cudaError_t)mptl_cuda_fill_whole(&sink, numbers, c->n[operand], c->of->stream),
              "filling an operand");
}

static mptl_status poison(const check *c, int array, int byte) {
  return cuda(cudaMemsetAsync(c->at[array], byte, c->bytes[array], c->of->stream),
              "filling an array");
}

static mptl_status run(const check *c, int result) {
  void *workspace = c->bytes[WORKSPACE] > 0 ? c->at[WORKSPACE] : NULL;
  return c->of->run(c->of->context, (float *)(void *)c->at[result], c->at[FIRST], c->at[SECOND],
                    workspace);
}

/* Runs the pass twice, and a third time between the events, because first runs do other work, too.
 * Then compares the results. */
static mptl_status launch(const check *c, int turn) {
  const mptl_cuda_checked *of = c->of;
  const mptl_cuda_check_numbers numbers = mptl_cuda_check_numbers_of(
      mptl_conv_terms(of->shape, of->pass), of->first, of->second, of->capability, turn);
  const mptl_cuda_sums sums = sums_of(of);
  const float *result = (const float *)(const void *)c->at[RESULT],
              *again = (const float *)(const void *)c->at[AGAIN];
  mptl_cuda_verdict *verdict = (mptl_cuda_verdict *)(void *)c->at[VERDICT];
  mptl_rounder rounders[2];
  const mptl_rounder *first = init_codes(&rounders[0], of->first),
                     *second = init_codes(&rounders[1], of->second);
  const mptl_source a = {c->at[FIRST], mptl_cuda_type_size(of->first), first},
                    b = {c->at[SECOND], mptl_cuda_type_size(of->second), second};
  MPTL_TRY(fill(c, FIRST, first, &numbers.first));
  MPTL_TRY(fill(c, SECOND, second, &numbers.second));
  for (int i = RESULT; i <= WORKSPACE; i++) MPTL_TRY(poison(c, i, 0xff)); /* NaN */
  MPTL_TRY(poison(c, VERDICT, 0));
  MPTL_TRY(run(c, RESULT));
  MPTL_TRY(run(c, AGAIN));
  MPTL_TRY(cuda(cudaEventRecord(c->begin, of->stream), "event"));
  MPTL_TRY(run(c, AGAIN));
  MPTL_TRY(cuda(cudaEventRecord(c->end, of->stream), "event"));
  MPTL_TRY(cuda(
      (cudaError_t)mptl_cuda_check_sums(verdict, result, &a, &b, &sums,
                                        mptl_cuda_check_samples(&sums), numbers.most, of->stream),
      "comparing sums"));
  return cuda((cudaError_t)mptl_cuda_check_same(verdict, result, again, c->n[RESULT], of->stream),
              "comparing results");
}

static void describe(mptl_cuda_finding *f, const mptl_cuda_verdict *v, const check *c) {
  const mptl_cuda_sums sums = sums_of(c->of);
  f->right = v->wrong == 0 && v->others == 0 && v->left == 0;
  if (v->wrong > 0)
    snprintf(f->wrong, sizeof f->wrong,
             "%llu of %zu sums are wrong, element %llu is %g, must be %g",
             (unsigned long long)v->wrong, mptl_cuda_check_samples(&sums),
             (unsigned long long)v->at, (double)v->got, (double)v->expected);
  else if (v->left > 0)
    snprintf(f->wrong, sizeof f->wrong, "%llu of %zu elements are not written",
             (unsigned long long)v->left, c->n[RESULT]);
  else if (v->others > 0)
    snprintf(f->wrong, sizeof f->wrong, "%llu of %zu elements are others in another run",
             (unsigned long long)v->others, c->n[RESULT]);
}

static mptl_status take_turn(mptl_cuda_finding *f, const check *c, int turn) {
  mptl_cuda_verdict v;
  float ms = 0;
  MPTL_TRY(launch(c, turn));
  MPTL_TRY(
      cuda(cudaMemcpyAsync(&v, c->at[VERDICT], sizeof v, cudaMemcpyDeviceToHost, c->of->stream),
           "checking"));
  MPTL_TRY(cuda(cudaStreamSynchronize(c->of->stream), "checking"));
  MPTL_TRY(cuda(cudaEventElapsedTime(&ms, c->begin, c->end), "event"));
  if (turn == 0 || ms < f->ms) f->ms = ms;
  describe(f, &v, c);
  return MPTL_OK;
}

static mptl_status take_turns(mptl_cuda_finding *f, check *c) {
  f->right = true;
  MPTL_TRY(cuda(cudaEventCreate(&c->begin), "event"));
  MPTL_TRY(cuda(cudaEventCreate(&c->end), "event"));
  MPTL_TRY(allocate(c));
  for (int turn = 0; turn < mptl_cuda_check_turns(c->of->first) && f->right; turn++)
    MPTL_TRY(take_turn(f, c, turn));
  return MPTL_OK;
}

mptl_status mptl_cuda_check(mptl_cuda_finding *finding, const mptl_cuda_checked *checked) {
  check c = {.of = checked};
  *finding = (mptl_cuda_finding){.right = false};
  size_arrays(&c);
  mptl_status status = take_turns(finding, &c);
  /* Launched work may use the memory. */
  if (status != MPTL_OK && c.at[0] != NULL) cudaStreamSynchronize(checked->stream);
  if (c.at[0] != NULL) cudaFree(c.at[0]);
  if (c.begin != NULL) cudaEventDestroy(c.begin);
  if (c.end != NULL) cudaEventDestroy(c.end);
  return status;
}

#else

mptl_status mptl_cuda_check(mptl_cuda_finding *finding, const mptl_cuda_checked *checked) {
  (void)checked;
  *finding = (mptl_cuda_finding){.right = false};
  return mptl_fail(MPTL_EBACKEND, "this build has no kernels to check it with");
}

#endif

/* The check of plans (engine/backend/cuda/check.c) as a whole, with kernels compiled for the host
 * and a CUDA runtime with only the functions that it calls. Passes are right, lose bits, leave an
 * element out, or change from run to run. */
#include <cuda_runtime_api.h>

#include "../../c/dnn_check.h"
#include "backend/cuda/check.h"
#include "backend/cuda/check_numbers.h"
#include "mptl/format.h"
#include "mptl/round.h"

/* ---- The runtime ---- */

static int allocations, fail_allocation;

cudaError_t cudaMalloc(void **p, size_t bytes) {
  if (fail_allocation) return cudaErrorMemoryAllocation;
  allocations++;
  *p = aligned_alloc(256, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
  allocations--;
  free(p);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
  (void)stream;
  memset(p, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
  (void)kind, (void)stream;
  memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return (void)stream, cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) {
  allocations++;
  *event = malloc(1);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  allocations--;
  free(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return (void)event, (void)stream, cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
  (void)begin, (void)end;
  *ms = 2.5f;
  return cudaSuccess;
}
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}

/* ---- A pass by loops, in binary32 ---- */

typedef enum way {
  RIGHT,
  LAST_WRONG,
  FIRST_LEFT_OUT,
  CHANGES,
  USES_WORKSPACE,
  REFUSES_TO_RUN,
  FEWER_BITS
} way;

typedef struct pass {
  const mptl_conv_shape *shape;
  mptl_pass pass;
  mptl_cuda_type types[2];
  way way;
  int narrow, bits; /* FEWER_BITS: an operand and the number of bits that it keeps */
  int runs;
} pass;

static float *numbers_of(const void *operand, size_t n, const pass *p, int which) {
  static const char *const names[MPTL_CUDA_TYPES] = {"fp32", "fp32", "bf16", "fp8_e4m3fn",
                                                     "fp8_e5m2"};
  float *x = malloc(n * sizeof *x);
  mptl_format format;
  mptl_rounder r;
  MUST(mptl_format_parse(&format, names[p->types[which]]));
  mptl_rounder_init(&r, format, MPTL_NEAREST_EVEN, MPTL_SATURATE);
  if (mptl_cuda_type_size(p->types[which]) == 4)
    memcpy(x, operand, n * sizeof *x);
  else
    mptl_decode_f32(x, operand, n, &r);
  for (size_t i = 0; i < n && p->way == FEWER_BITS && p->narrow == which; i++) {
    uint32_t u = mptl_f32_bits(x[i]);
    x[i] = mptl_bits_f32(u & ~((1u << (24 - p->bits)) - 1));
  }
  return x;
}

static mptl_status run(void *context, float *result, const void *first, const void *second,
                       void *workspace) {
  pass *p = context;
  const mptl_conv_shape *s = p->shape;
  int c = s->ic / s->groups, k = s->oc / s->groups;
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(s);
  const mptl_pass_arrays arrays = mptl_arrays_of(p->pass);
  float *of[3];
  CHECK((workspace != NULL) == (p->way == USES_WORKSPACE), "workspace");
  if (p->way == REFUSES_TO_RUN) return mptl_fail(MPTL_EUNSUPPORTED, "not today");
  of[arrays.first] = numbers_of(first, sizes.n[arrays.first], p, 0);
  of[arrays.second] = numbers_of(second, sizes.n[arrays.second], p, 1);
  of[arrays.result] = calloc(sizes.n[arrays.result], sizeof(float));
  for (int i = c - 1; i >= 0; i--)
    for (int kw = s->kw - 1; kw >= 0; kw--)
      for (int kh = 0; kh < s->kh; kh++)
        for (int n = 0; n < s->n; n++)
          for (int oh = 0; oh < s->oh; oh++)
            for (int ow = 0; ow < s->ow; ow++)
              for (int o = 0; o < s->oc; o++) {
                int h = oh * s->sh - s->ph + kh * s->dh, w = ow * s->sw - s->pw + kw * s->dw;
                if (h < 0 || h >= s->ih || w < 0 || w >= s->iw) continue;
                int at[] = {((n * s->ih + h) * s->iw + w) * s->ic + o / k * c + i,
                            ((o * s->kh + kh) * s->kw + kw) * c + i,
                            ((n * s->oh + oh) * s->ow + ow) * s->oc + o};
                of[arrays.result][at[arrays.result]] +=
                    of[arrays.first][at[arrays.first]] * of[arrays.second][at[arrays.second]];
              }
  size_t left_out = p->way == FIRST_LEFT_OUT, n = sizes.n[arrays.result];
  memcpy(result + left_out, of[arrays.result] + left_out, (n - left_out) * sizeof *result);
  if (p->way == LAST_WRONG) result[n - 1] += 1;
  /* The first run, which is compared with sums, is right. */
  if (p->way == CHANGES && p->runs > 0) result[n / 2] += 1;
  if (p->way == USES_WORKSPACE) memset(workspace, 0, 1000);
  p->runs++;
  for (int i = 0; i < 3; i++) free(of[i]);
  return MPTL_OK;
}

/* ---- The check ---- */

static const mptl_conv_shape shapes[] = {{1, 4, 4, 4, 3, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, false},
                                         {1, 6, 5, 5, 4, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1, 2, false},
                                         {5, 11, 1, 1, 6, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, false}};

static mptl_status check(mptl_cuda_finding *f, pass *p) {
  const mptl_cuda_checked checked = {.shape = p->shape,
                                     .pass = p->pass,
                                     .first = p->types[0],
                                     .second = p->types[1],
                                     .capability = 90,
                                     .workspace_bytes = p->way == USES_WORKSPACE ? 1000 : 0,
                                     .run = run,
                                     .context = p};
  mptl_status status = mptl_cuda_check(f, &checked);
  CHECK(allocations == 0, "%d are not freed", allocations);
  return status;
}

static void find(pass p, bool right, const char *words) {
  mptl_cuda_finding f;
  MUST(check(&f, &p));
  CHECK(f.right == right && strstr(f.wrong, words) != NULL, "%s, %s by %s, way %d: %s",
        mptl_pass_name(p.pass), mptl_cuda_type_name(p.types[0]), mptl_cuda_type_name(p.types[1]),
        p.way, f.wrong);
  CHECK(!right ||
            (f.ms == 2.5f && f.wrong[0] == '\0' && p.runs == 3 * mptl_cuda_check_turns(p.types[0])),
        "%g ms, %d runs, %s", (double)f.ms, p.runs, f.wrong);
}

static void passes(const mptl_conv_shape *shape, mptl_pass which) {
  static const mptl_cuda_type types[][2] = {
      {MPTL_CUDA_F32, MPTL_CUDA_F32},   {MPTL_CUDA_TF32, MPTL_CUDA_TF32},
      {MPTL_CUDA_BF16, MPTL_CUDA_BF16}, {MPTL_CUDA_E4M3, MPTL_CUDA_E4M3},
      {MPTL_CUDA_E5M2, MPTL_CUDA_E4M3}, {MPTL_CUDA_E4M3, MPTL_CUDA_E5M2}};
  static const int less[MPTL_CUDA_TYPES] = {11, 8, 7, 3, 2}; /* as the next narrower type */
  for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
    pass p = {.shape = shape, .pass = which, .types = {types[t][0], types[t][1]}};
    find(p, true, "");
    for (int operand = 0; operand < 2; operand++) {
      p.way = FEWER_BITS, p.narrow = operand, p.bits = less[types[t][operand]];
      find(p, false, " sums are wrong, element ");
    }
  }
  pass p = {.shape = shape, .pass = which, .way = LAST_WRONG};
  find(p, false, "1 of ");
  p.way = FIRST_LEFT_OUT;
  find(p, false, "1 of ");
  p.way = CHANGES;
  find(p, false, " elements are others in another run");
  p.way = USES_WORKSPACE;
  find(p, true, "");
}

/* An operand of F32 with 22 bits, as many as two numbers of TF32 have together. */
static void nearly_all_bits(void) {
  static const mptl_conv_shape shape = {1, 8, 5, 5, 8, 5, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, false};
  for (int which = 0; which < MPTL_PASSES; which++)
    for (int operand = 0; operand < 2; operand++)
      find((pass){.shape = &shape,
                  .pass = (mptl_pass)which,
                  .way = FEWER_BITS,
                  .narrow = operand,
                  .bits = 22},
           false, " sums are wrong, element ");
}

int main(void) {
  mptl_cuda_finding f;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    for (int which = 0; which < MPTL_PASSES; which++) passes(&shapes[i], (mptl_pass)which);
  nearly_all_bits();
  pass p = {.shape = &shapes[0], .way = REFUSES_TO_RUN};
  REFUSES(check(&f, &p), MPTL_EUNSUPPORTED, "not today");
  fail_allocation = 1;
  p.way = RIGHT;
  REFUSES(check(&f, &p), MPTL_ENOMEM, "checking it in ", "out of memory");
  return failures != 0;
}

/* Matrix products on the GPU of this machine, compared with sums by definition; exits 77 if there
 * is none.
 *
 * Operands are small whole numbers that are exact in all types, with sums that are exact in
 * binary32, so every type must give the same results. With arbitrary numbers, two runs must give
 * the same bits, and F32 nearly the sums of binary64. */
#include <cuda_runtime_api.h>
#include <string.h>

#include "../c/dnn_check.h"
#include "product.h"
#include "sums.h"

enum { NO_GPU = 77, LIMIT = 64 << 20 };

#define CUDA(call) CHECK((call) == cudaSuccess, "%s", cudaGetErrorString(cudaGetLastError()))

/* ---- Operands ---- */

/* Converts a number to a type. In types of 8 bits it must be a whole number from -3 to 3. */
static void store(unsigned char *to, float value, mptl_cuda_type type) {
  static const unsigned char e4m3[] = {0, 0x38, 0x40, 0x44}, e5m2[] = {0, 0x3c, 0x40, 0x42};
  uint32_t bits;
  memcpy(&bits, &value, 4);
  uint16_t upper = (uint16_t)(bits >> 16);
  if (mptl_cuda_type_size(type) == 4)
    memcpy(to, &bits, 4);
  else if (type == MPTL_CUDA_BF16)
    memcpy(to, &upper, 2);
  else
    *to = (unsigned char)((type == MPTL_CUDA_E4M3 ? e4m3 : e5m2)[(int)fabsf(value)] |
                          (value < 0 ? 0x80 : 0));
}

static void *to_device(const double *numbers, size_t n, mptl_cuda_type type) {
  size_t size = mptl_cuda_type_size(type);
  unsigned char *bytes = malloc(n * size);
  void *there = NULL;
  for (size_t i = 0; i < n; i++) store(bytes + i * size, (float)numbers[i], type);
  CUDA(cudaMalloc(&there, n * size));
  CUDA(cudaMemcpy(there, bytes, n * size, cudaMemcpyHostToDevice));
  free(bytes);
  return there;
}

/* ---- Running ---- */

/* Runs a product three times, the last time from a CUDA graph. All runs must give the same bits,
 * and the expected numbers within a bound relative to the largest number. */
static void judge(const product *p, const layer *l, mptl_pass pass, mptl_cuda_type a,
                  mptl_cuda_type b, double *const arrays[3], double bound, cudaStream_t stream) {
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(&l->s);
  const mptl_pass_arrays of = mptl_arrays_of(pass);
  const size_t n = sizes.n[of.result];
  void *first = to_device(arrays[of.first], sizes.n[of.first], a),
       *second = to_device(arrays[of.second], sizes.n[of.second], b);
  float *there = NULL, *here[3];
  void *workspace = NULL;
  CUDA(cudaMalloc((void **)&there, n * sizeof(float)));
  if (p->workspace_bytes > 0) CUDA(cudaMalloc(&workspace, p->workspace_bytes));
  cudaGraph_t graph = NULL;
  cudaGraphExec_t replay = NULL;
  for (int i = 0; i < 3; i++) {
    here[i] = malloc(n * sizeof(float));
    CUDA(cudaMemset(there, 0xff, n * sizeof(float)));
    CUDA(cudaDeviceSynchronize());
    if (i == 2) CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    MUST(product_run(p, there, first, second, workspace));
    if (i == 2) {
      CUDA(cudaStreamEndCapture(stream, &graph));
      CUDA(cudaGraphInstantiate(&replay, graph, 0));
      CUDA(cudaGraphLaunch(replay, stream));
    }
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(here[i], there, n * sizeof(float), cudaMemcpyDeviceToHost));
  }
  CHECK(memcmp(here[0], here[1], n * sizeof(float)) == 0, "%s: another run gives other bits",
        p->name);
  CHECK(memcmp(here[0], here[2], n * sizeof(float)) == 0, "%s: a CUDA graph gives other bits",
        p->name);
  double largest = 0, off = 0;
  for (size_t i = 0; i < n; i++) {
    double difference = fabs(here[0][i] - arrays[of.result][i]);
    if (!(difference <= off)) off = difference; /* NaN too */
    largest = fmax(largest, fabs(arrays[of.result][i]));
  }
  CHECK(off <= bound * largest, "%s: off by %g, of at most %g", p->name, off, largest);
  if (replay != NULL) cudaGraphExecDestroy(replay);
  if (graph != NULL) cudaGraphDestroy(graph);
  for (int i = 0; i < 3; i++) free(here[i]);
  cudaFree(first), cudaFree(second), cudaFree(there), cudaFree(workspace);
}

static void fill(double *numbers, size_t n, values kind, uint64_t seed) {
  for (size_t i = 0; i < n; i++) numbers[i] = random_value(kind, &seed);
}

/* Makes the operands of a pass, and computes the expected sums. */
static void prepare(double *arrays[3], const layer *l, values kind, mptl_pass pass) {
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(&l->s);
  for (int i = 0; i < MPTL_PRODUCT_ARRAYS; i++) {
    arrays[i] = calloc(sizes.n[i], sizeof(double));
    if (i != (int)mptl_arrays_of(pass).result) fill(arrays[i], sizes.n[i], kind, (uint64_t)i + 1);
  }
  conv_reference(&l->s, pass, arrays);
}

typedef struct gpu {
  mptl_cuda_dnn *dnn;
  mptl_cuda_blas *blas;
  cudaStream_t stream;
} gpu;

/* Checks one pass in one pair of types. If the libraries do not have it, this is printed and is no
 * failure: specs without a GPU check what the libraries must have. */
static void pass_of(const gpu *g, const layer *l, mptl_pass pass, mptl_cuda_type a,
                    mptl_cuda_type b, values kind, double bound) {
  product p;
  mptl_status status = product_create(&p, g->dnn, g->blas, l, pass, a, b, LIMIT);
  if (status == MPTL_EUNSUPPORTED && a != MPTL_CUDA_F32 && a != MPTL_CUDA_TF32) {
    printf("not here: %s\n", mptl_error());
    return;
  }
  MUST(status);
  printf("%s: %s, %zu bytes%s%s\n", p.name, p.engine, p.workspace_bytes,
         p.wrong[0] != '\0' ? "; skipped: " : "", p.wrong);
  double *arrays[MPTL_PRODUCT_ARRAYS];
  prepare(arrays, l, kind, pass);
  judge(&p, l, pass, a, b, arrays, bound, g->stream);
  for (int i = 0; i < MPTL_PRODUCT_ARRAYS; i++) free(arrays[i]);
  product_destroy(&p);
}

static void all_of(const gpu *g, const layer *l) {
  static const mptl_cuda_type types[][2] = {
      {MPTL_CUDA_F32, MPTL_CUDA_F32},   {MPTL_CUDA_TF32, MPTL_CUDA_TF32},
      {MPTL_CUDA_BF16, MPTL_CUDA_BF16}, {MPTL_CUDA_E4M3, MPTL_CUDA_E4M3},
      {MPTL_CUDA_E5M2, MPTL_CUDA_E4M3}, {MPTL_CUDA_E4M3, MPTL_CUDA_E5M2}};
  const int capability = mptl_cuda_dnn_capability(g->dnn);
  for (mptl_pass pass = MPTL_FORWARD; pass <= MPTL_BACKWARD_WEIGHTS; pass++) {
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
      if (mptl_cuda_supports(capability, types[t][0]))
        pass_of(g, l, pass, types[t][0], types[t][1], INTEGERS, 0);
    pass_of(g, l, pass, MPTL_CUDA_F32, MPTL_CUDA_F32, REALS, 3e-6);
    if (mptl_cuda_supports(capability, MPTL_CUDA_BF16)) {
      pass_of(g, l, pass, MPTL_CUDA_TF32, MPTL_CUDA_TF32, NARROW, 3e-6);
      pass_of(g, l, pass, MPTL_CUDA_BF16, MPTL_CUDA_BF16, NARROW, 3e-6);
    }
  }
}

/* A sum of 8-bit products that needs more than the 13 fraction bits of units before compute
 * capability 10.0: 256 * 256 and ones. From 10.0 on it must be exact, because --compute auto uses 8
 * bits there. */
static void sums_of_8_bits(const gpu *g) {
  enum { N = 16, IN = 32, OUT = 16, ONE = 0x38, LARGE = 0x78 };
  const mptl_linear_shape shape = {N, IN, 1, 1, OUT, false};
  const int capability = mptl_cuda_dnn_capability(g->dnn);
  mptl_cuda_linear *linear = NULL;
  if (!mptl_cuda_supports(capability, MPTL_CUDA_E4M3)) return;
  MUST(mptl_cuda_linear_create(&linear, g->blas, &shape, MPTL_FORWARD, MPTL_CUDA_E4M3,
                               MPTL_CUDA_E4M3, LIMIT));
  if (linear == NULL) return;
  unsigned char codes[N * IN];
  float y[N * OUT], *there = NULL;
  void *operand = NULL, *workspace = NULL;
  for (int i = 0; i < N * IN; i++) codes[i] = i % IN == 0 ? LARGE : ONE;
  CUDA(cudaMalloc(&operand, sizeof codes));
  CUDA(cudaMalloc((void **)&there, sizeof y));
  CUDA(cudaMalloc(&workspace, mptl_cuda_linear_workspace_bytes(linear) + 1));
  CUDA(cudaMemcpy(operand, codes, sizeof codes, cudaMemcpyHostToDevice));
  MUST(mptl_cuda_linear_run(linear, there, operand, operand, workspace));
  CUDA(cudaStreamSynchronize(g->stream));
  CUDA(cudaMemcpy(y, there, sizeof y, cudaMemcpyDeviceToHost));
  printf("256 * 256 and %d ones in 8 bits: %.0f\n", IN - 1, (double)y[0]);
  for (int i = 0; i < N * OUT && capability >= 100; i++)
    CHECK(y[i] == 65536 + IN - 1, "a sum of 8-bit products is %g, expected %d", (double)y[i],
          65536 + IN - 1);
  cudaFree(operand), cudaFree(there), cudaFree(workspace);
  mptl_cuda_linear_destroy(linear);
}

int main(void) {
  static const mptl_conv_shape convs[] = {
      {4, 16, 12, 12, 32, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, false}, /* as usual */
      {4, 16, 12, 10, 32, 6, 5, 3, 3, 2, 2, 1, 1, 1, 1, 1, false},   /* strided, oblong */
      {4, 16, 12, 12, 32, 6, 6, 1, 1, 2, 2, 0, 0, 1, 1, 1, false},   /* a shortcut */
      {4, 3, 12, 12, 16, 12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, false},  /* images */
      {4, 24, 10, 10, 24, 5, 5, 3, 3, 2, 2, 1, 1, 1, 1, 24, false},  /* depthwise */
      {4, 16, 10, 10, 32, 10, 10, 3, 3, 1, 1, 2, 2, 2, 2, 2,
       false},                                                    /* with channel groups, dilated */
      {3, 10, 7, 7, 14, 7, 7, 1, 1, 1, 1, 0, 0, 1, 1, 1, false}}; /* sizes without common factors */
  static const mptl_linear_shape linears[] = {
      {64, 32, 1, 1, 48, false}, {7, 5, 3, 2, 10, false}, {1, 512, 1, 1, 10, false}};
  gpu g = {.stream = NULL};
  if (cudaStreamCreate(&g.stream) != cudaSuccess) {
    printf("no GPU: %s\n", cudaGetErrorString(cudaGetLastError()));
    return NO_GPU;
  }
  MUST(mptl_cuda_dnn_create(&g.dnn, 0, g.stream));
  MUST(mptl_cuda_blas_create(&g.blas, 0, g.stream));
  for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) {
    const layer l = {.s = convs[i]};
    all_of(&g, &l);
  }
  for (size_t i = 0; i < sizeof linears / sizeof *linears; i++) {
    const layer l = layer_of_linear(&linears[i]);
    all_of(&g, &l);
  }
  sums_of_8_bits(&g);
  mptl_cuda_dnn_destroy(g.dnn);
  mptl_cuda_blas_destroy(g.blas);
  cudaStreamDestroy(g.stream);
  return failures != 0;
}

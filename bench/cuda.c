/* Rates of matrix products and of rounding on a GPU.
 *
 *   cmake --build build --target bench_cuda && build/bin/bench_cuda [batch]
 *
 * First arrays of 256 MiB: copying (bytes read and written), then rounding, encoding and decoding,
 * as in training. Then the passes of convolutions and linear operators, in all types that the
 * libraries have an engine for: milliseconds, TFLOP/s, workspace, engine. Times are medians of runs
 * between CUDA events, after warm-up. Exits 77 where there is no GPU. */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/channels.h"
#include "backend/cuda/inspect.h"
#include "conv_rows.h"
#include "kernels/cuda/kernels.h"
#include "mptl/format.h"
#include "mptl/round.h"

enum { NO_GPU = 77, RUNS = 25, ELEMENTS = 64 << 20 };

static void must(int ok, const char *what, const char *problem) {
  if (ok) return;
  fprintf(stderr, "bench_cuda: %s: %s\n", what, problem);
  exit(1);
}
#define CUDA(call) must((call) == cudaSuccess, #call, cudaGetErrorString(cudaPeekAtLastError()))
#define MUST(call) must((call) == MPTL_OK, #call, mptl_error())

static cudaStream_t stream;

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* The median of the milliseconds of a call. */
static double median(void (*call)(void *), void *argument) {
  static cudaEvent_t events[RUNS + 1];
  float ms[RUNS];
  if (events[0] == NULL)
    for (int i = 0; i <= RUNS; i++) CUDA(cudaEventCreate(&events[i]));
  for (int i = 0; i < 3; i++) call(argument);
  for (int i = 0; i < RUNS; i++) {
    CUDA(cudaEventRecord(events[i], stream));
    call(argument);
  }
  CUDA(cudaEventRecord(events[RUNS], stream));
  CUDA(cudaStreamSynchronize(stream));
  for (int i = 0; i < RUNS; i++) CUDA(cudaEventElapsedTime(&ms[i], events[i], events[i + 1]));
  qsort(ms, RUNS, sizeof *ms, ascending);
  return (double)ms[RUNS / 2];
}

/* Device memory with different numbers, of both signs and with small exponents in all types. */
static void *numbers(size_t bytes) {
  char *there = NULL, *here = malloc(1 << 20);
  must(here != NULL, "numbers", "no memory");
  CUDA(cudaMalloc((void **)&there, bytes));
  for (size_t i = 0; i < 1 << 18; i++) {
    float x = (float)(int32_t)((i + 1) * 2654435761u) * 0x1p-31f;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits & 0xffff0000u) | bits >> 16; /* two bf16 numbers, too */
    memcpy(here + 4 * i, &bits, 4);
  }
  for (size_t at = 0; at < bytes; at += 1 << 20)
    CUDA(cudaMemcpy(there + at, here, bytes - at < 1 << 20 ? bytes - at : 1 << 20,
                    cudaMemcpyHostToDevice));
  free(here);
  return there;
}

/* ---- Arrays ---- */

typedef struct arrays {
  float *x, *y;
  void *codes;
  mptl_rounder rounder;
  mptl_round_stats *stats;
} arrays;

static void copy(void *p) {
  arrays *a = p;
  CUDA(cudaMemcpyAsync(a->y, a->x, ELEMENTS * sizeof(float), cudaMemcpyDeviceToDevice, stream));
}
static void round_array(void *p) {
  arrays *a = p;
  CUDA((cudaError_t)mptl_cuda_round(a->y, a->x, ELEMENTS, &a->rounder, (mptl_key){.seed = 1}, 0,
                                    a->stats, stream));
}
static void encode(void *p) {
  arrays *a = p;
  CUDA((cudaError_t)mptl_cuda_encode(a->codes, a->x, ELEMENTS, &a->rounder, (mptl_key){.seed = 1},
                                     0, a->stats, stream));
}
static void decode(void *p) {
  arrays *a = p;
  CUDA((cudaError_t)mptl_cuda_decode(a->y, a->codes, ELEMENTS, &a->rounder, stream));
}

static void print_bandwidth(const char *name, double ms, double bytes_an_element, double ceiling) {
  double gb = bytes_an_element * ELEMENTS / ms * 1e-6;
  printf("%-36s %8.3f ms %8.0f GB/s %6.2f of copying\n", name, ms, gb,
         gb / (ceiling > 0 ? ceiling : gb));
}

static void time_arrays(void) {
  static const struct {
    const char *name, *format;
    mptl_rounding_mode mode;
    void (*call)(void *);
    double bytes; /* read and written for each element */
  } rows[] = {{"round FP(4,3,4), nearest", "FP(4,3,4)", MPTL_NEAREST_EVEN, round_array, 8},
              {"round FP(4,3,4), stochastic", "FP(4,3,4)", MPTL_STOCHASTIC, round_array, 8},
              {"encode FP(4,3,4), nearest", "FP(4,3,4)", MPTL_NEAREST_EVEN, encode, 5},
              {"decode FP(4,3,4)", "FP(4,3,4)", MPTL_NEAREST_EVEN, decode, 5},
              {"encode FP(6,9,0), nearest", "FP(6,9,0)", MPTL_NEAREST_EVEN, encode, 6},
              {"decode FP(6,9,0)", "FP(6,9,0)", MPTL_NEAREST_EVEN, decode, 6}};
  arrays a = {.x = numbers(ELEMENTS * sizeof(float))};
  CUDA(cudaMalloc((void **)&a.y, ELEMENTS * sizeof(float)));
  CUDA(cudaMalloc(&a.codes, ELEMENTS * 2));
  CUDA(cudaMalloc((void **)&a.stats, sizeof *a.stats));
  CUDA(cudaMemset(a.stats, 0, sizeof *a.stats));
  double ms = median(copy, &a), ceiling = 8.0 * ELEMENTS / ms * 1e-6;
  print_bandwidth("copy", ms, 8, 0);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    mptl_format format;
    MUST(mptl_format_parse(&format, rows[i].format));
    mptl_rounder_init(&a.rounder, format, rows[i].mode, MPTL_SATURATE);
    if (rows[i].call == decode) encode(&a);
    print_bandwidth(rows[i].name, median(rows[i].call, &a), rows[i].bytes, ceiling);
  }
  CUDA(cudaFree(a.x)), CUDA(cudaFree(a.y)), CUDA(cudaFree(a.codes)), CUDA(cudaFree(a.stats));
}

/* ---- Products ---- */

typedef struct product {
  mptl_cuda_conv *conv; /* or: */
  mptl_cuda_linear *linear;
  const void *first, *second;
  float *result;
  void *workspace;
  size_t workspace_bytes;
} product;

static void run(void *argument) {
  const product *p = argument;
  MUST(p->conv != NULL
           ? mptl_cuda_conv_run(p->conv, p->result, p->first, p->second, p->workspace)
           : mptl_cuda_linear_run(p->linear, p->result, p->first, p->second, p->workspace));
}

/* Makes the workspace at least this large. */
static void need_workspace(product *p, size_t bytes) {
  if (bytes <= p->workspace_bytes) return;
  CUDA(cudaFree(p->workspace));
  CUDA(cudaMalloc(&p->workspace, bytes));
  p->workspace_bytes = bytes;
}

/* The passes of a row with the channels and engines of training: within the usual limit of
 * workspace. */
static void time_one(mptl_cuda_dnn *dnn, mptl_cuda_blas *blas, const bench_row *row, int n,
                     mptl_cuda_type type, product *p) {
  const mptl_conv_shape s = bench_shape(row, n);
  const mptl_conv_shape filled = mptl_cuda_filled_up(s, type, type);
  const mptl_linear_shape linear = {s.n, s.ic, 1, 1, s.oc, false};
  printf("%-4s %3d->%-4d %2dx%-2d k%d s%d g%-3d", mptl_cuda_type_name(type), s.ic, s.oc, s.ih, s.iw,
         s.kh, s.sh, s.groups);
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    mptl_status status = MPTL_EUNSUPPORTED;
    if (!row->stem || pass != MPTL_BACKWARD_DATA)
      status = row->linear ? mptl_cuda_linear_create(&p->linear, blas, &linear, (mptl_pass)pass,
                                                     type, type, MPTL_CUDA_USUAL_WORKSPACE)
                           : mptl_cuda_conv_create(&p->conv, dnn, &filled, (mptl_pass)pass, type,
                                                   type, MPTL_CUDA_USUAL_WORKSPACE);
    if (status == MPTL_EUNSUPPORTED) {
      printf(" | %-50s", "-");
      continue;
    }
    MUST(status);
    size_t bytes = row->linear ? mptl_cuda_linear_workspace_bytes(p->linear)
                               : mptl_cuda_conv_workspace_bytes(p->conv);
    need_workspace(p, bytes);
    double ms = median(run, p);
    printf(" | %7.3f ms %6.1f TF/s %5.1f MB %-16.16s", ms, bench_flops(&s) / ms * 1e-9,
           1e-6 * (double)bytes, row->linear ? "cuBLASLt" : mptl_cuda_conv_engine(p->conv));
    mptl_cuda_conv_destroy(p->conv);
    mptl_cuda_linear_destroy(p->linear);
    p->conv = NULL, p->linear = NULL;
  }
  printf("\n");
  fflush(stdout);
}

/* All rows use the same memory, which the largest array of any of them fits into. */
static void time_products(mptl_cuda_dnn *dnn, mptl_cuda_blas *blas, int n) {
  size_t most = 0;
  for (int i = 0; i < BENCH_ROWS; i++) {
    const mptl_conv_shape s = bench_shape(&bench_rows[i], n);
    const mptl_conv_sizes sizes = mptl_conv_sizes_of(&s);
    for (int k = 0; k < MPTL_PRODUCT_ARRAYS; k++) most = sizes.n[k] > most ? sizes.n[k] : most;
  }
  product p = {.first = numbers(most * sizeof(float)), .second = numbers(most * sizeof(float))};
  CUDA(cudaMalloc((void **)&p.result, most * sizeof(float)));
  for (mptl_cuda_type type = MPTL_CUDA_F32; type <= MPTL_CUDA_BF16; type++)
    for (int i = 0; i < BENCH_ROWS && mptl_cuda_supports(mptl_cuda_dnn_capability(dnn), type); i++)
      time_one(dnn, blas, &bench_rows[i], n, type, &p);
  CUDA(cudaFree((void *)p.first)), CUDA(cudaFree((void *)p.second)), CUDA(cudaFree(p.result)),
      CUDA(cudaFree(p.workspace));
}

int main(int argc, char **argv) {
  const int n = argc > 1 ? atoi(argv[1]) : 128;
  mptl_cuda_dnn *dnn;
  mptl_cuda_blas *blas;
  if (n < 1) must(0, "batch", "must be at least 1");
  if (cudaStreamCreate(&stream) != cudaSuccess) {
    printf("no GPU: %s\n", cudaGetErrorString(cudaGetLastError()));
    return NO_GPU;
  }
  MUST(mptl_cuda_dnn_create(&dnn, 0, stream));
  MUST(mptl_cuda_blas_create(&blas, 0, stream));
  printf("cuDNN %s, cuBLASLt %s, compute capability %d, batch %d\n", mptl_cuda_dnn_version().text,
         mptl_cuda_blas_version().text, mptl_cuda_dnn_capability(dnn), n);
  time_arrays();
  time_products(dnn, blas, n);
  mptl_cuda_dnn_destroy(dnn);
  mptl_cuda_blas_destroy(blas);
  return 0;
}

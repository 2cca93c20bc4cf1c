/* Rounding of all 2^32 binary32 inputs on a GPU: compares values, statistics, codes and decoded
 * codes with the CPU's, which round_exhaustive compares with the definition.
 *
 *   round_on_gpu [FORMAT...]      all six modes of each; without arguments a list of selected
 * formats
 *
 * Prints differences with bit patterns and exits with 1; exits with 77 if there is no GPU.
 */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/kernels.h"
#include "mptl/round.h"

enum { NO_GPU = 77 };
#define BLOCK ((size_t)1 << 25)
#define CHUNK ((size_t)1 << 18)

static float *input, *rounded, *decoded, *expected, *back; /* the host's */
static unsigned char *codes, *expected_codes;
static float *device_input, *device_rounded, *device_decoded;
static void *device_codes;
static mptl_round_stats *device_stats; /* of rounding, of encoding */

static void must(cudaError_t error) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "round_on_gpu: %s\n", cudaGetErrorString(error));
  exit(1);
}

static bool same_stats(const mptl_round_stats *a, const mptl_round_stats *b) {
  return a->elements == b->elements && a->underflow == b->underflow && a->overflow == b->overflow &&
         a->inf_in == b->inf_in && a->nan_in == b->nan_in &&
         mptl_f32_bits(a->max_abs) == mptl_f32_bits(b->max_abs);
}

/* Rounds, encodes and decodes a block of inputs on the GPU, and copies the results to the host. */
static void run_device(const mptl_rounder *r, mptl_key key, uint64_t index0,
                       mptl_round_stats stats[2]) {
  size_t bytes = BLOCK * sizeof(float), code_bytes = BLOCK * mptl_code_size(r->format);
  must(cudaMemcpy(device_input, input, bytes, cudaMemcpyHostToDevice));
  must(cudaMemset(device_stats, 0, 2 * sizeof *device_stats));
  must((cudaError_t)mptl_cuda_round(device_rounded, device_input, BLOCK, r, key, index0,
                                    &device_stats[0], NULL));
  must((cudaError_t)mptl_cuda_encode(device_codes, device_input, BLOCK, r, key, index0,
                                     &device_stats[1], NULL));
  must((cudaError_t)mptl_cuda_decode(device_decoded, device_codes, BLOCK, r, NULL));
  must(cudaMemcpy(rounded, device_rounded, bytes, cudaMemcpyDeviceToHost));
  must(cudaMemcpy(decoded, device_decoded, bytes, cudaMemcpyDeviceToHost));
  must(cudaMemcpy(codes, device_codes, code_bytes, cudaMemcpyDeviceToHost));
  must(cudaMemcpy(stats, device_stats, 2 * sizeof *stats, cudaMemcpyDeviceToHost));
}

/* Compares a chunk; returns the number of differences. */
static int check_chunk(size_t at, const mptl_rounder *r, mptl_key key, uint64_t index0,
                       mptl_round_stats *stats) {
  size_t size = mptl_code_size(r->format);
  int wrong = 0;
  mptl_round_stats unused = {0};
  mptl_round_f32(expected + at, input + at, CHUNK, r, key, index0 + at, stats);
  mptl_encode_f32(expected_codes + at * size, input + at, CHUNK, r, key, index0 + at, &unused);
  mptl_decode_f32(back + at, expected_codes + at * size, CHUNK, r);
  if (memcmp(rounded + at, expected + at, CHUNK * sizeof *rounded) == 0 &&
      memcmp(codes + at * size, expected_codes + at * size, CHUNK * size) == 0 &&
      memcmp(decoded + at, back + at, CHUNK * sizeof *decoded) == 0)
    return 0;
  for (size_t i = at; i < at + CHUNK; i++) {
    bool same = mptl_f32_bits(rounded[i]) == mptl_f32_bits(expected[i]) &&
                mptl_f32_bits(decoded[i]) == mptl_f32_bits(back[i]) &&
                memcmp(codes + i * size, expected_codes + i * size, size) == 0;
    if (!same && wrong++ < 3)
      printf("  %08X: GPU %08X, decoded from its code %08X; expected %08X, %08X\n",
             mptl_f32_bits(input[i]), mptl_f32_bits(rounded[i]), mptl_f32_bits(decoded[i]),
             mptl_f32_bits(expected[i]), mptl_f32_bits(back[i]));
  }
  return wrong;
}

static int run(const char *name, mptl_format format, mptl_rounding_mode mode,
               mptl_overflow overflow) {
  mptl_rounder r;
  mptl_key key = mptl_make_key(20230717, MPTL_STREAM_ROUND, 5, 7);
  int wrong = 0;
  mptl_rounder_init(&r, format, mode, overflow);
  for (uint64_t base = 0; base < (uint64_t)1 << 32 && wrong == 0; base += BLOCK) {
    mptl_round_stats want = {0}, got[2];
    for (size_t i = 0; i < BLOCK; i++) input[i] = mptl_bits_f32((uint32_t)(base + i));
    run_device(&r, key, base, got);
#pragma omp parallel for reduction(+ : wrong) schedule(dynamic)
    for (size_t at = 0; at < BLOCK; at += CHUNK) {
      mptl_round_stats here = {0};
      wrong += check_chunk(at, &r, key, base, &here);
#pragma omp critical
      mptl_stats_merge(&want, &here);
    }
    for (int k = 0; k < 2; k++)
      if (!same_stats(&want, &got[k])) {
        printf("  inputs from %08X: statistics of %s differ\n", (uint32_t)base,
               k == 0 ? "rounding" : "encoding");
        wrong++;
      }
  }
  printf("%s %s %s: %s\n", name, mptl_rounding_mode_name(mode),
         overflow == MPTL_INF ? "inf" : "saturate", wrong ? "DIFFERENT" : "equal");
  return wrong != 0;
}

int main(int argc, char **argv) {
  static char *list[] = {"FP(4,3,4)", "FP(5,2,0)", "FP(6,9,0)", "fp8_e4m3fn", "fp16",
                         "bf16",      "fp32",      "FP(8,7,4)", "FP(7,23,62)"};
  int devices = 0, wrong = 0, n = argc > 1 ? argc - 1 : (int)(sizeof list / sizeof *list);
  char **names = argc > 1 ? argv + 1 : list;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
    return puts("no GPU here"), NO_GPU;
  size_t bytes = BLOCK * sizeof(float);
  input = malloc(bytes), rounded = malloc(bytes), decoded = malloc(bytes), expected = malloc(bytes),
  back = malloc(bytes);
  codes = malloc(bytes), expected_codes = malloc(bytes);
  if (!input || !rounded || !decoded || !expected || !back || !codes || !expected_codes)
    return fputs("no memory\n", stderr), 1;
  must(cudaMalloc((void **)&device_input, bytes)),
      must(cudaMalloc((void **)&device_rounded, bytes));
  must(cudaMalloc((void **)&device_decoded, bytes)), must(cudaMalloc(&device_codes, bytes));
  must(cudaMalloc((void **)&device_stats, 2 * sizeof *device_stats));
  for (int i = 0; i < n; i++) {
    mptl_format format;
    if (mptl_format_parse(&format, names[i]) != MPTL_OK || format.auto_bias)
      return puts(mptl_error()), 1;
    for (int mode = 0; mptl_rounding_mode_name((size_t)mode) != NULL; mode++)
      for (int overflow = MPTL_SATURATE; overflow <= MPTL_INF; overflow++)
        wrong |= run(names[i], format, (mptl_rounding_mode)mode, (mptl_overflow)overflow);
  }
  return wrong;
}

/* The shim: barriers, warp operations and shared memory work as in CUDA, and misuse ends the
 * program with a message. */
#include "kernels/cuda/compat.h"
#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

/* Sums in shared memory, with a barrier in each turn. */
static __global__ void sum_kernel(const int *x, int *sums) {
  MPTL_SHARED(int, shared, [64]);
  shared[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  for (unsigned half = 32; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];
}

static void barriers(void) {
  int x[3 * 64], sums[3] = {0}, want[3] = {0};
  for (int i = 0; i < 3 * 64; i++) want[i / 64] += x[i] = i * i % 101;
  MPTL_LAUNCH(sum_kernel, 3, 64, 0, NULL)(x, sums);
  CHECK(memcmp(sums, want, sizeof sums) == 0, "sums %d %d %d", sums[0], sums[1], sums[2]);
}

static __global__ void warp_kernel(uint32_t *out) {
  unsigned lane = threadIdx.x % 32, i = blockIdx.y * 64 + threadIdx.x;
  uint32_t sum = lane;
  for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
  sum = __shfl_sync(0xffffffffu, sum, 0);
  uint32_t other = __shfl_xor_sync(0xffffffffu, i, 5);
  uint32_t odd = __ballot_sync(0xffffffffu, lane % 2);
  uint32_t half =
      lane < 16 ? __reduce_add_sync(0x0000ffffu, lane) : __reduce_max_sync(0xffff0000u, lane);
  out[i] = sum == 496 && other == (i ^ 5) && odd == 0xaaaaaaaau && half == (lane < 16 ? 120 : 31) &&
           __any_sync(0xffffffffu, lane == 3) && !__all_sync(0xffffffffu, lane == 3);
}

static void warps(void) {
  uint32_t out[128] = {0};
  MPTL_LAUNCH(warp_kernel, dim3(1, 2), 64, 0, NULL)(out);
  for (int i = 0; i < 128; i++) CHECK(out[i] == 1, "thread %d got other results", i);
}

static __global__ void dynamic_kernel(int *out, int n) {
  MPTL_DYNAMIC_SHARED(int, shared);
  if (threadIdx.x == 0)
    for (int i = 0; i < n; i++) out[1] += shared[i] == -1; /* garbage, the same each time */
  __syncthreads();
  shared[threadIdx.x] = (int)threadIdx.x;
  __syncthreads();
  atomicAdd(&out[0], shared[(threadIdx.x + 1) % blockDim.x]);
}

static void dynamic_memory(void) {
  int out[2] = {0, 0};
  MPTL_LAUNCH(dynamic_kernel, 2, 96, 96 * sizeof(int), NULL)(out, 96);
  CHECK(out[0] == 2 * 96 * 95 / 2 && out[1] == 2 * 96, "sum %d, %d words of garbage", out[0],
        out[1]);
}

/* ---- Misuse ---- */

static __global__ void two_barriers(void) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

static __global__ void lane_left(void) {
  if (threadIdx.x == 7) return;
  __shfl_sync(0xffffffffu, 1, 0);
}

static __global__ void two_operations(void) {
  if (threadIdx.x < 16)
    (void)__ballot_sync(0xffffffffu, 1);
  else
    (void)__ballot_sync(0xffffffffu, 1);
}

static __global__ void outside_of_mask(void) {
  if (threadIdx.x < 16) __shfl_sync(0x0000ffffu, 1, 20);
}

static __global__ void never_met(void) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    (void)__ballot_sync(0xffffffffu, 1);
}

static __global__ void misaligned(const char *p) { mptl_load<uint32_t>(p + 1); }

static __global__ void misaligned_sum(char *p) {
  atomicAdd((unsigned long long *)(void *)(p + 4), 1ull);
}

/* Runs a launch in a child process, which must end with a message that contains these words. */
template <typename Function>
static void refuses(const char *words, Function fn) {
  int ends[2];
  char text[4096];
  size_t length = 0;
  if (pipe(ends) != 0) abort();
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    fn();
    _exit(0);
  }
  close(ends[1]);
  for (ssize_t n; length < sizeof text - 1 &&
                  (n = read(ends[0], text + length, sizeof text - 1 - length)) > 0;)
    length += (size_t)n;
  text[length] = '\0';
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status != 0 && strstr(text, words) != NULL, "expected \"%s\", got \"%s\"", words, text);
}

static void misuse(void) {
  refuses("threads at different barriers", [] { MPTL_LAUNCH(two_barriers, 1, 64, 0, NULL)(); });
  refuses("names lane 7, which has exited", [] { MPTL_LAUNCH(lane_left, 1, 32, 0, NULL)(); });
  refuses("lanes of a warp at different operations", [] {
    MPTL_LAUNCH(two_operations, 1, 32, 0, NULL)();
  });
  refuses("a shuffle from lane 20", [] { MPTL_LAUNCH(outside_of_mask, 1, 32, 0, NULL)(); });
  refuses("no thread of the block can go on", [] { MPTL_LAUNCH(never_met, 1, 32, 0, NULL)(); });
  refuses("names lane 8, which the block does not have", [] {
    MPTL_LAUNCH(lane_left, 1, 8, 0, NULL)();
  });
  refuses("blocks of 2048 x 1 x 1 threads", [] { MPTL_LAUNCH(two_barriers, 1, 2048, 0, NULL)(); });
  alignas(16) static const char bytes[16] = {0};
  refuses("a misaligned access of 4 bytes", [] { MPTL_LAUNCH(misaligned, 1, 1, 0, NULL)(bytes); });
  alignas(16) static char sums[16] = {0};
  refuses("a misaligned access of 8 bytes", [] {
    MPTL_LAUNCH(misaligned_sum, 1, 1, 0, NULL)(sums);
  });
  refuses("a grid of 0 x 1 x 1 blocks", [] { MPTL_LAUNCH(two_barriers, 0, 64, 0, NULL)(); });
  refuses("a grid of 1 x 65536 x 1 blocks", [] {
    MPTL_LAUNCH(two_barriers, dim3(1, 65536), 64, 0, NULL)();
  });
#ifdef __SANITIZE_ADDRESS__
  refuses("AddressSanitizer", [] {
    int out[2] = {0, 0};
    MPTL_LAUNCH(dynamic_kernel, 1, 96, 95 * sizeof(int), NULL)(out, 95);
  });
#endif
}

int main(void) {
  in_both_orders([] {
    barriers();
    warps();
    dynamic_memory();
  });
  misuse();
  return failures != 0;
}

/* The kernels of paths: as the plain one that looks steps up (stage.cu), step by step. */
#include "kernels/cuda/paths.h"

using namespace mptl_path_steps;

namespace {

/* What a thread counts of each step, and what is rare of all threads of the block. */
template <int N>
struct tally {
  uint32_t underflow[N], max[N];
  uint32_t *rare; /* overflow, inf_in, nan_in of each */
};

template <uint64_t PATH, int N, int J>
MPTL_DEVICE void take_steps(const mptl_steps &steps, mptl_stack *stack, size_t i, uint32_t channel, tally<N> *tally) {
  constexpr unsigned code = mptl_code_at(PATH, J), flags = mptl_flags_at(PATH, J);
  const mptl_step &s = steps.step[J];
  float r[MPTL_WIDE];
  mptl_counts c = mptl_no_counts();
  mptl_before_step(flags, stack);
  mptl_compute_step<true>(r, code, flags, s, stack, i, MPTL_WIDE, channel, steps.c, true);
  bool within = mptl_round_wide<true>(r, MPTL_WIDE, s.sink, i, &c);
  tally->underflow[J] += c.underflow;
  tally->max[J] = c.max > tally->max[J] ? c.max : tally->max[J];
  if ((c.overflow | c.inf_in | c.nan_in) != 0) {
    atomicAdd(&tally->rare[3 * J], c.overflow);
    atomicAdd(&tally->rare[3 * J + 1], c.inf_in);
    atomicAdd(&tally->rare[3 * J + 2], c.nan_in);
  }
  if (flags & MPTL_STEP_STORE)
    mptl_write_wide<true>(s.sink, i, MPTL_WIDE, r, within);
  else
    mptl_copy_wide(stack->top, r);
  if constexpr (J + 1 < N) take_steps<PATH, N, J + 1>(steps, stack, i, channel, tally);
}

template <uint64_t PATH, int N>
__global__ void __launch_bounds__(MPTL_THREADS, 4) path_kernel(MPTL_PARAM mptl_steps steps) {
  MPTL_SHARED(uint32_t, rare, [3 * N]);
  tally<N> tally;
  tally.rare = rare;
  if (threadIdx.x < 3 * N) rare[threadIdx.x] = 0;
#pragma unroll
  for (int j = 0; j < N; j++) tally.underflow[j] = tally.max[j] = 0;
  __syncthreads();
  size_t turn = mptl_warp_step(), i = mptl_warp_begin() + mptl_lane() * MPTL_WIDE;
  uint32_t channel = (uint32_t)(i % steps.c), further = (uint32_t)(turn % steps.c);
  for (; i < steps.numel; i += turn) {
    mptl_stack stack = mptl_no_stack();
    take_steps<PATH, N, 0>(steps, &stack, i, channel, &tally);
    channel += further;
    channel -= channel >= steps.c ? steps.c : 0;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < N; j++) {
    mptl_counts c = {tally.underflow[j], 0, 0, 0, tally.max[j]};
    if (threadIdx.x == 0) c.overflow = rare[3 * j], c.inf_in = rare[3 * j + 1], c.nan_in = rare[3 * j + 2];
    mptl_add_counts(steps.step[j].sink.stats, c, steps.numel);
  }
}

struct entry {
  uint64_t path;
  int n;
  mptl_path_kernel *kernel;
};

template <uint64_t... Steps>
entry entry_of() {
  constexpr uint64_t path = mptl_path(Steps...);
  return {path, sizeof...(Steps), path_kernel<path, sizeof...(Steps)>};
}

}  // namespace

mptl_path_kernel *mptl_find_path(const mptl_steps *steps) {
  static const entry entries[] = {
      entry_of<load, bn, store_relu>(),
      entry_of<load, store_bn>(),
      entry_of<load, bn, add, store_relu>(),                      /* a residual block's end */
      entry_of<load, bn, push_load, bn, add_below, store_relu>(), /* and of one with a convolution beside it */
      entry_of<load, bn, store_add>(),                            /* MobileNet-V2's */
      entry_of<load, through_relu, through_bn>(),                 /* and their gradients */
      entry_of<load, through_bn>(),
      entry_of<load, through_relu, store, take, through_bn>(),
      entry_of<load, through_relu, push_take, through_bn, pop_take, through_bn>(),
      entry_of<load, store, take, through_bn>(),
  };
  uint64_t path;
  if (!mptl_path_of(&path, steps)) return NULL;
  for (const entry &e : entries)
    if (e.path == path && e.n == steps->n) return e.kernel;
  return NULL;
}

/* The kernels of specialised stages. They compute what the plain kernel of stage.cu computes,
 * without a switch over opcodes. */
#include "kernels/cuda/specialised.h"

using namespace mptl_instruction_bytes;

namespace {

/* A thread's counts for each instruction. Rare events are counted for all threads of the block
 * together, in shared memory. */
template <int N>
struct tally {
  uint32_t underflow[N], max[N];
  uint32_t *rare; /* [N][3]: overflow, inf_in, nan_in */
};

/* Runs instructions J to N - 1 on one vector. */
template <uint64_t SIGNATURE, int N, int J>
MPTL_DEVICE void run_instructions(const mptl_instruction_list &list, mptl_stack *stack, size_t i,
                                  uint32_t channel, tally<N> *tally) {
  constexpr unsigned opcode = mptl_opcode_at(SIGNATURE, J), flags = mptl_flags_at(SIGNATURE, J);
  const mptl_instruction &s = list.at[J];
  float r[MPTL_WIDE];
  mptl_counts c = mptl_no_counts();
  mptl_move_stack(flags, stack);
  mptl_compute_instruction<true>(r, opcode, flags, s, stack, i, MPTL_WIDE, channel, list.c, true);
  bool within = mptl_round_wide<true>(r, MPTL_WIDE, s.sink, i, &c);
  tally->underflow[J] += c.underflow;
  tally->max[J] = c.max > tally->max[J] ? c.max : tally->max[J];
  if ((c.overflow | c.inf_in | c.nan_in) != 0) {
    atomicAdd(&tally->rare[3 * J], c.overflow);
    atomicAdd(&tally->rare[3 * J + 1], c.inf_in);
    atomicAdd(&tally->rare[3 * J + 2], c.nan_in);
  }
  if (flags & MPTL_INS_STORE)
    mptl_write_wide<true>(s.sink, i, MPTL_WIDE, r, within);
  else
    mptl_copy_wide(stack->top, r);
  if constexpr (J + 1 < N) run_instructions<SIGNATURE, N, J + 1>(list, stack, i, channel, tally);
}

template <uint64_t SIGNATURE, int N>
__global__ void __launch_bounds__(MPTL_THREADS, 4)
    specialised_kernel(MPTL_PARAM mptl_instruction_list list) {
  MPTL_SHARED(uint32_t, rare, [3 * N]);
  tally<N> tally;
  tally.rare = rare;
  if (threadIdx.x < 3 * N) rare[threadIdx.x] = 0;
#pragma unroll
  for (int j = 0; j < N; j++) tally.underflow[j] = tally.max[j] = 0;
  __syncthreads();
  size_t stride = mptl_warp_stride(), i = mptl_warp_begin() + mptl_lane() * MPTL_WIDE;
  uint32_t channel = (uint32_t)(i % list.c), further = (uint32_t)(stride % list.c);
  for (; i < list.numel; i += stride) {
    mptl_stack stack = mptl_no_stack();
    run_instructions<SIGNATURE, N, 0>(list, &stack, i, channel, &tally);
    channel += further;
    channel -= channel >= list.c ? list.c : 0;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < N; j++) {
    mptl_counts c = {tally.underflow[j], 0, 0, 0, tally.max[j]};
    if (threadIdx.x == 0)
      c.overflow = rare[3 * j], c.inf_in = rare[3 * j + 1], c.nan_in = rare[3 * j + 2];
    mptl_add_counts(list.at[j].sink.stats, c, list.numel);
  }
}

struct entry {
  uint64_t signature;
  int n; /* instructions */
  mptl_specialised_kernel *kernel;
};

template <uint64_t... Bytes>
entry entry_of() {
  constexpr uint64_t signature = mptl_signature(Bytes...);
  return {signature, sizeof...(Bytes), specialised_kernel<signature, sizeof...(Bytes)>};
}

}  // namespace

mptl_specialised_kernel *mptl_find_specialised(const mptl_instruction_list *list) {
  static const entry entries[] = {
      entry_of<load, bn, store_relu>(),
      entry_of<load, store_bn>(),
      entry_of<load, bn, add, store_relu>(),                      /* the end of a residual block */
      entry_of<load, bn, push_load, bn, add_below, store_relu>(), /* with a shortcut convolution */
      entry_of<load, bn, store_add>(),                            /* MobileNet-V2's block */
      entry_of<load, through_relu, through_bn>(),                 /* gradients, here and below */
      entry_of<load, through_bn>(),
      entry_of<load, through_relu, store, take, through_bn>(),
      entry_of<load, through_relu, push_take, through_bn, pop_take, through_bn>(),
      entry_of<load, store, take, through_bn>(),
  };
  uint64_t signature;
  if (!mptl_signature_of(&signature, list)) return NULL;
  for (const entry &e : entries)
    if (e.signature == signature && e.n == list->n) return e.kernel;
  return NULL;
}

/* Stages whose steps are known when this is compiled, a byte each: code, and flags in the upper four bits. Steps of usual networks' stages get
 * kernels of their own, in which nothing of a step has to be looked up. */
#ifndef MPTL_KERNELS_CUDA_PATHS_H
#define MPTL_KERNELS_CUDA_PATHS_H

#include "kernels/cuda/stage.h"

enum { MPTL_PATH_STEPS = 8 };

#define MPTL_PATH_STEP(code, flags) ((uint64_t)((code) | (flags) << 4))

static_assert(MPTL_STEP_RELU_BACKWARD < 16 && MPTL_STEP_STORE < 16, "a step of a path is a byte");

/* A path's steps, the first in the lowest byte. */
template <typename... Steps>
constexpr uint64_t mptl_path(uint64_t first, Steps... more) {
  if constexpr (sizeof...(more) == 0)
    return first;
  else
    return first | mptl_path(more...) << 8;
}

/* The steps that usual paths are made of. */
namespace mptl_path_steps {

constexpr uint64_t load = MPTL_PATH_STEP(MPTL_STEP_LOAD, MPTL_STEP_READ);
constexpr uint64_t push_load = MPTL_PATH_STEP(MPTL_STEP_LOAD, MPTL_STEP_PUSH | MPTL_STEP_READ);
constexpr uint64_t bn = MPTL_PATH_STEP(MPTL_STEP_BATCHNORM, 0), store_bn = MPTL_PATH_STEP(MPTL_STEP_BATCHNORM, MPTL_STEP_STORE);
constexpr uint64_t store_relu = MPTL_PATH_STEP(MPTL_STEP_RELU, MPTL_STEP_STORE);
constexpr uint64_t add_below = MPTL_PATH_STEP(MPTL_STEP_ADD, 0), add = MPTL_PATH_STEP(MPTL_STEP_ADD, MPTL_STEP_READ);
constexpr uint64_t store_add = MPTL_PATH_STEP(MPTL_STEP_ADD, MPTL_STEP_READ | MPTL_STEP_STORE);
constexpr uint64_t through_relu = MPTL_PATH_STEP(MPTL_STEP_RELU_BACKWARD, MPTL_STEP_READ);
constexpr uint64_t through_bn = MPTL_PATH_STEP(MPTL_STEP_BATCHNORM_BACKWARD, MPTL_STEP_READ | MPTL_STEP_STORE);
constexpr uint64_t take = MPTL_PATH_STEP(MPTL_STEP_TAKE, 0), store = MPTL_PATH_STEP(MPTL_STEP_TAKE, MPTL_STEP_STORE);
constexpr uint64_t push_take = MPTL_PATH_STEP(MPTL_STEP_TAKE, MPTL_STEP_PUSH),
                   pop_take = MPTL_PATH_STEP(MPTL_STEP_TAKE, MPTL_STEP_POP);

}  // namespace mptl_path_steps

/* The path of steps; false: they are too many, or one of them is none of a path's. */
static inline bool mptl_path_of(uint64_t *path, const mptl_steps *steps) {
  *path = 0;
  if (steps->n > MPTL_PATH_STEPS) return false;
  for (int j = 0; j < steps->n; j++) {
    if (steps->step[j].code >= 16) return false;
    *path |= MPTL_PATH_STEP(steps->step[j].code, steps->step[j].flags) << 8 * j;
  }
  return true;
}

/* What the kernels of paths have been compiled for; NULL: there is none for these steps, which are plain. */
typedef void mptl_path_kernel(mptl_steps steps);
mptl_path_kernel *mptl_find_path(const mptl_steps *steps);

constexpr __host__ __device__ unsigned mptl_code_at(uint64_t path, int j) { return path >> 8 * j & 0xf; }
constexpr __host__ __device__ unsigned mptl_flags_at(uint64_t path, int j) { return path >> 8 * j >> 4 & 0xf; }

#endif

/* The table of operand types of matrix products. */
#include "backend/cuda/types.h"

static const struct {
  const char *name;
  size_t size;
  int capability; /* the lowest that has units for the type */
} types[MPTL_CUDA_TYPES] = {[MPTL_CUDA_F32] = {"f32", 4, 0},
                            [MPTL_CUDA_TF32] = {"tf32", 4, 80},
                            [MPTL_CUDA_BF16] = {"bf16", 2, 80},
                            [MPTL_CUDA_E4M3] = {"e4m3", 1, 89},
                            [MPTL_CUDA_E5M2] = {"e5m2", 1, 89}};

const char *mptl_cuda_type_name(mptl_cuda_type type) { return types[type].name; }

size_t mptl_cuda_type_size(mptl_cuda_type type) { return types[type].size; }

bool mptl_cuda_supports(int capability, mptl_cuda_type type) {
  return capability >= types[type].capability;
}

mptl_status mptl_cuda_check_types(int capability, mptl_cuda_type first, mptl_cuda_type second) {
  if (first != second && (types[first].size != 1 || types[second].size != 1))
    return mptl_fail(MPTL_EINVAL, "operands are %s and %s, must be of one type or both of 8 bits",
                     types[first].name, types[second].name);
  int needed =
      types[types[first].capability > types[second].capability ? first : second].capability;
  if (capability < needed)
    return mptl_fail(MPTL_EUNSUPPORTED, "%s needs compute capability %d.%d, the device has %d.%d",
                     types[first].name, needed / 10, needed % 10, capability / 10, capability % 10);
  return MPTL_OK;
}

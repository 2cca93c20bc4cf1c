/* Chooses the types in which passes are multiplied, from the formats of their operands, the device
 * and the --compute setting. */
#include "backend/call_shapes.h"
#include "backend/cuda/cuda.h"

/* The type that has the same codes as the format; MPTL_CUDA_TYPES: there is none. */
static mptl_cuda_type code_type(mptl_format f) {
  static const mptl_format e4m3 = {4, 3, 0, MPTL_TOP_FN, false},
                           e5m2 = {5, 2, 0, MPTL_TOP_IEEE, false};
  return mptl_format_equal(f, e4m3)   ? MPTL_CUDA_E4M3
         : mptl_format_equal(f, e5m2) ? MPTL_CUDA_E5M2
                                      : MPTL_CUDA_TYPES;
}

/* Tensor cores of compute capability 8.9 and 9.0 keep 13 fraction bits of a sum of 8-bit products,
 * fewer than binary32. From 10.0 on they keep as many as for bf16. */
enum { FP8_SUMS_FROM = 100 };

static bool multiplies_codes(int capability, mptl_format a, mptl_format b, int groups,
                             mptl_compute_setting setting) {
  mptl_cuda_type first = code_type(a), second = code_type(b);
  if (first == MPTL_CUDA_TYPES || second == MPTL_CUDA_TYPES || groups != 1 ||
      setting == MPTL_COMPUTE_BINARY32)
    return false;
  if (setting != MPTL_COMPUTE_FP8 && capability < FP8_SUMS_FROM) return false;
  return mptl_cuda_check_types(capability, first, second) == MPTL_OK;
}

/* Chooses a type in which both operands are exact. Binary32 if mptl_bf16_products is 0: values have
 * more than 16 significant bits, or units would change operands or products that are too small for
 * them. Also for automatic shifts (auto_bias), which may make values too small. No bf16 for
 * convolutions with channel groups: cuDNN has no engine for most of them, and they are bound by
 * memory anyway. */
static mptl_cuda_type choose_type(int capability, mptl_format a, mptl_format b, int groups,
                                  mptl_compute_setting setting) {
  int products = mptl_bf16_products(a, b);
  if (setting == MPTL_COMPUTE_BINARY32 || products == 0 || a.auto_bias || b.auto_bias)
    return MPTL_CUDA_F32;
  if (products == 1 && groups == 1 && mptl_cuda_supports(capability, MPTL_CUDA_BF16))
    return MPTL_CUDA_BF16;
  return a.m <= 10 && b.m <= 10 && mptl_cuda_supports(capability, MPTL_CUDA_TF32) ? MPTL_CUDA_TF32
                                                                                  : MPTL_CUDA_F32;
}

/* Whether TF32 replaces binary32, because the setting asks for it. */
static bool replaces_binary32(int capability, mptl_cuda_type type, mptl_compute_setting setting) {
  return type == MPTL_CUDA_F32 && setting == MPTL_COMPUTE_TF32 &&
         mptl_cuda_supports(capability, MPTL_CUDA_TF32);
}

const char *mptl_cuda_compute(mptl_device *device, mptl_format a, mptl_format b, int groups,
                              size_t parameters, mptl_compute_setting setting) {
  (void)parameters;
  int capability = mptl_cuda(device)->capability;
  if (multiplies_codes(capability, a, b, groups, setting)) return "fp8";
  mptl_cuda_type type = choose_type(capability, a, b, groups, setting);
  return mptl_cuda_type_name(replaces_binary32(capability, type, setting) ? MPTL_CUDA_TF32 : type);
}

/* If the library has no code for a type, the next wider type gives the same results; it is the type
 * before it in mptl_cuda_type. */
mptl_cuda_choices mptl_cuda_choices_of(const mptl_call *call, mptl_pass pass) {
  const mptl_rounder *x = call->in[0].rounder, *theta = call->theta_rounder, *dy = call->dy.rounder;
  const mptl_rounder *first = pass == MPTL_BACKWARD_DATA ? dy : x,
                     *second = pass == MPTL_BACKWARD_WEIGHTS ? dy : theta;
  int type = MPTL_CUDA_F32, groups = call->op->attr.groups,
      capability = mptl_cuda_of(call)->capability;
  mptl_cuda_choices c = {.n = 0};
  if (first != NULL && second != NULL) {
    type = (int)choose_type(capability, first->format, second->format, groups, call->compute);
    if (multiplies_codes(capability, first->format, second->format, groups, call->compute))
      c.pairs[c.n++] =
          (mptl_cuda_pair){.first = code_type(first->format), .second = code_type(second->format)};
  }
  bool inexact = replaces_binary32(capability, (mptl_cuda_type)type, call->compute);
  if (inexact) type = MPTL_CUDA_TF32;
  for (; type >= MPTL_CUDA_F32; type--)
    c.pairs[c.n++] = (mptl_cuda_pair){(mptl_cuda_type)type, (mptl_cuda_type)type,
                                      inexact && type == MPTL_CUDA_TF32};
  return c;
}

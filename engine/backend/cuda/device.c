/* Devices, names of versions and products, limits of workspace. */
#include "backend/cuda/device.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

static mptl_status cuda(cudaError_t error, int device) {
  if (error == cudaSuccess) return MPTL_OK;
  cudaGetLastError(); /* so that the next launch does not report it again */
  bool absent = error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ||
                error == cudaErrorInvalidDevice;
  return mptl_fail(absent ? MPTL_EUNSUPPORTED : MPTL_EBACKEND, "device cuda:%d: %s", device,
                   cudaGetErrorString(error));
}

mptl_status mptl_cuda_use_device(int device, mptl_cuda_traits *traits) {
  struct cudaDeviceProp p;
  MPTL_TRY(cuda(cudaSetDevice(device), device));
  MPTL_TRY(cuda(cudaGetDeviceProperties(&p, device), device));
  *traits =
      (mptl_cuda_traits){.capability = 10 * p.major + p.minor, .memory_bytes = p.totalGlobalMem};
  return MPTL_OK;
}

mptl_cuda_version mptl_cuda_version_of(size_t v) {
  mptl_cuda_version version;
  snprintf(version.text, sizeof version.text, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
  return version;
}

void mptl_cuda_product_name(char *name, size_t size, const char *shape, mptl_pass pass,
                            mptl_cuda_type first, mptl_cuda_type second) {
  snprintf(name, size, "%s, %s, %s%s%s", shape, mptl_pass_name(pass), mptl_cuda_type_name(first),
           first == second ? "" : " by ", first == second ? "" : mptl_cuda_type_name(second));
}

/* ---- Workspace ---- */

enum { USUAL_LEAST = 64 << 20, USUAL_SHARE = 16 };

size_t mptl_cuda_workspace_limit(const mptl_conv_shape *shape, const mptl_cuda_traits *traits,
                                 size_t limit) {
  if (limit != MPTL_CUDA_USUAL_WORKSPACE) return limit;
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(shape);
  const size_t numel = sizes.n[MPTL_X] + sizes.n[MPTL_W] + sizes.n[MPTL_Y];
  size_t bytes = numel * sizeof(float) / 4 * 5, most = traits->memory_bytes / USUAL_SHARE;
  if (bytes > most) bytes = most;
  return bytes > USUAL_LEAST ? bytes : USUAL_LEAST;
}

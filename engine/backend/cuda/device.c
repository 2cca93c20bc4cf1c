/* A device, and names. */
#include "backend/cuda/device.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

static mptl_status cuda(cudaError_t error, int device) {
  if (error == cudaSuccess) return MPTL_OK;
  cudaGetLastError(); /* it is told here, and not once more to who looks for errors of launches */
  bool absent = error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver || error == cudaErrorInvalidDevice;
  return mptl_fail(absent ? MPTL_EUNSUPPORTED : MPTL_EBACKEND, "device cuda:%d: %s", device, cudaGetErrorString(error));
}

mptl_status mptl_cuda_use_device(int device, int *capability) {
  int major = 0, minor = 0;
  MPTL_TRY(cuda(cudaSetDevice(device), device));
  MPTL_TRY(cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), device));
  MPTL_TRY(cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), device));
  *capability = 10 * major + minor;
  return MPTL_OK;
}

void mptl_cuda_product_name(char *name, size_t size, const char *shape, mptl_pass pass, mptl_cuda_type first,
                            mptl_cuda_type second) {
  snprintf(name, size, "%s, %s, %s%s%s", shape, mptl_pass_name(pass), mptl_cuda_type_name(first), first == second ? "" : " by ",
           first == second ? "" : mptl_cuda_type_name(second));
}

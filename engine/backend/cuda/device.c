/* A device, names, and limits. */
#include "backend/cuda/device.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

static mptl_status cuda(cudaError_t error, int device) {
  if (error == cudaSuccess) return MPTL_OK;
  cudaGetLastError(); /* it is told here, and not once more to who looks for errors of launches */
  bool absent = error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver || error == cudaErrorInvalidDevice;
  return mptl_fail(absent ? MPTL_EUNSUPPORTED : MPTL_EBACKEND, "device cuda:%d: %s", device, cudaGetErrorString(error));
}

mptl_status mptl_cuda_use_device(int device, mptl_cuda_traits *traits) {
  struct cudaDeviceProp p;
  MPTL_TRY(cuda(cudaSetDevice(device), device));
  MPTL_TRY(cuda(cudaGetDeviceProperties(&p, device), device));
  *traits = (mptl_cuda_traits){.capability = 10 * p.major + p.minor, .memory_bytes = p.totalGlobalMem};
  return MPTL_OK;
}

void mptl_cuda_product_name(char *name, size_t size, const char *shape, mptl_pass pass, mptl_cuda_type first,
                            mptl_cuda_type second) {
  snprintf(name, size, "%s, %s, %s%s%s", shape, mptl_pass_name(pass), mptl_cuda_type_name(first), first == second ? "" : " by ",
           first == second ? "" : mptl_cuda_type_name(second));
}

/* ---- Workspace ---- */

enum { USUAL_LEAST = 64 << 20, USUAL_SHARE = 16 };

static size_t numel(int a, int b, int c, int d) { return (size_t)a * (size_t)b * (size_t)c * (size_t)d; }

/* Of a pass whose values have n elements. */
static size_t workspace_limit(size_t n, const mptl_cuda_traits *traits, size_t limit) {
  if (limit != MPTL_CUDA_USUAL_WORKSPACE) return limit;
  size_t bytes = n * sizeof(float) / 4 * 5, most = traits->memory_bytes / USUAL_SHARE;
  if (bytes > most) bytes = most;
  return bytes > USUAL_LEAST ? bytes : USUAL_LEAST;
}

size_t mptl_cuda_conv_workspace_limit(const mptl_conv_shape *s, const mptl_cuda_traits *traits, size_t limit) {
  return workspace_limit(
      numel(s->n, s->ih, s->iw, s->ic) + numel(s->n, s->oh, s->ow, s->oc) + numel(s->oc, s->kh, s->kw, s->ic / s->groups), traits,
      limit);
}

size_t mptl_cuda_linear_workspace_limit(const mptl_linear_shape *s, const mptl_cuda_traits *traits, size_t limit) {
  return workspace_limit(numel(s->n, s->c, s->h, s->w) + numel(s->n, s->out, 1, 1) + numel(s->out, s->c, s->h, s->w), traits,
                         limit);
}

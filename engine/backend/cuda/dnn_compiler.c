/* NVRTC, with which cuDNN compiles engines. */
#include <nvrtc.h>
#include <stdio.h>

#include "backend/cuda/dnn_graph.h"

bool mptl_dnn_is_compiled(const mptl_dnn_key *key) {
  return mptl_cuda_type_size(key->first) < sizeof(float) || key->shape.groups > 1;
}

static nvrtcResult compile(int capability) {
  char architecture[40];
  const char *const options[] = {architecture};
  nvrtcProgram program;
  snprintf(architecture, sizeof architecture, "--gpu-architecture=compute_%d", capability);
  nvrtcResult result = nvrtcCreateProgram(&program, "__global__ void nothing() {}", "nothing.cu", 0, NULL, NULL);
  if (result != NVRTC_SUCCESS) return result;
  result = nvrtcCompileProgram(program, 1, options);
  nvrtcDestroyProgram(&program);
  return result;
}

mptl_status mptl_dnn_check_compiler(mptl_cuda_dnn *dnn) {
  if (dnn->compiler_works) return MPTL_OK;
  nvrtcResult result = compile(dnn->traits.capability);
  dnn->compiler_works = result == NVRTC_SUCCESS;
  if (dnn->compiler_works) return MPTL_OK;
  return mptl_fail(MPTL_EBACKEND, "NVRTC, with which cuDNN compiles engines, says %s for compute capability %d.%d",
                   nvrtcGetErrorString(result), dnn->traits.capability / 10, dnn->traits.capability % 10);
}

/* Checks NVRTC, with which cuDNN compiles engines. */
#include "backend/cuda/dnn_compiler.h"

#include <nvrtc.h>
#include <stdio.h>

mptl_cuda_version mptl_dnn_compiler_version(void) {
  int major = 0, minor = 0;
  mptl_cuda_version version;
  nvrtcVersion(&major, &minor);
  snprintf(version.text, sizeof version.text, "%d.%d", major, minor);
  return version;
}

static nvrtcResult compile(int capability) {
  char architecture[40];
  const char *const options[] = {architecture};
  nvrtcProgram program;
  snprintf(architecture, sizeof architecture, "--gpu-architecture=compute_%d", capability);
  nvrtcResult result =
      nvrtcCreateProgram(&program, "__global__ void nothing() {}", "nothing.cu", 0, NULL, NULL);
  if (result != NVRTC_SUCCESS) return result;
  result = nvrtcCompileProgram(program, 1, options);
  nvrtcDestroyProgram(&program);
  return result;
}

mptl_status mptl_dnn_check_compiler(mptl_dnn_device *device) {
  if (device->compiler_works) return MPTL_OK;
  nvrtcResult result = compile(device->traits.capability);
  device->compiler_works = result == NVRTC_SUCCESS;
  if (device->compiler_works) return MPTL_OK;
  return mptl_fail(MPTL_EBACKEND,
                   "NVRTC, with which cuDNN compiles engines, says %s for compute capability %d.%d",
                   nvrtcGetErrorString(result), device->traits.capability / 10,
                   device->traits.capability % 10);
}

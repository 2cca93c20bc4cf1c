/* A stand-in for NVIDIA's driver, libcuda.so.1, on machines without one: cuDNN's compiled engines
 * ask it to load their code. It accepts any code, has no device, and runs nothing. */
enum { SUCCESS = 0, NO_DEVICE = 100, NOT_SUPPORTED = 801 };

static int code;

int cuInit(unsigned flags) {
  (void)flags;
  return NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
  *version = 13000;
  return SUCCESS;
}

int cuLibraryLoadData(void **library) { /* other arguments are ignored */
  *library = &code;
  return SUCCESS;
}

int cuLibraryGetKernel(void **kernel) {
  *kernel = &code;
  return SUCCESS;
}

int cuLibraryUnload(void *library) {
  (void)library;
  return SUCCESS;
}

/* cuDNN looks up these functions, too, but does not call them. */
#define UNUSED(name) \
  int name(void) { return NOT_SUPPORTED; }
UNUSED(cuCtxGetCurrent)
UNUSED(cuCtxGetLimit)
UNUSED(cuCtxPopCurrent)
UNUSED(cuCtxPushCurrent)
UNUSED(cuDeviceGet)
UNUSED(cuDeviceGetCount)
UNUSED(cuGetErrorName)
UNUSED(cuGetErrorString)
UNUSED(cuKernelGetAttribute)
UNUSED(cuKernelGetFunction)
UNUSED(cuKernelSetAttribute)
UNUSED(cuLaunchCooperativeKernel)
UNUSED(cuLaunchKernel)
UNUSED(cuLaunchKernelEx)
UNUSED(cuLibraryLoadFromFile)
UNUSED(cuLinkAddData)
UNUSED(cuLinkComplete)
UNUSED(cuLinkCreate)
UNUSED(cuLinkDestroy)
UNUSED(cuOccupancyMaxPotentialClusterSize)
UNUSED(cuStreamGetCtx)

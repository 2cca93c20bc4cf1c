/* Stands in for NVRTC, as libnvrtc.so.13 or whatever its name is: one that cannot compile. cuDNN says of its engines then that they are not
 * supported, as it says of those that it does not have. */
enum { SUCCESS = 0, ERROR_COMPILATION = 6 };

int nvrtcVersion(int *major, int *minor) {
  *major = 13;
  *minor = 0;
  return SUCCESS;
}

int nvrtcCreateProgram(void **program) {
  static int made;
  *program = &made;
  return SUCCESS;
}

const char *nvrtcGetErrorString(int error) { return error == ERROR_COMPILATION ? "NVRTC_ERROR_COMPILATION" : "another error"; }

int nvrtcGetProgramLogSize(void *program, unsigned long *size) {
  (void)program;
  *size = 1;
  return SUCCESS;
}

int nvrtcGetProgramLog(void *program, char *log) {
  (void)program;
  *log = '\0';
  return SUCCESS;
}

int nvrtcDestroyProgram(void **program) {
  (void)program;
  return SUCCESS;
}

#define FAILS(name) \
  int name(void) { return ERROR_COMPILATION; }
FAILS(__nvrtcCPEx)
FAILS(nvrtcCompileProgram)
FAILS(nvrtcGetPTXSize)
FAILS(nvrtcGetPTX)
FAILS(nvrtcGetCUBINSize)
FAILS(nvrtcGetCUBIN)

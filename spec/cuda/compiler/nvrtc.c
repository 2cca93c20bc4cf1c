/* A stand-in for NVRTC (libnvrtc.so.13, by CUDA's version) that cannot compile. cuDNN then reports
 * that its engines are not supported, as for engines that it does not have. With
 * MPTL_SPEC_COMPILES=little it compiles sources of one line. */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, ERROR_COMPILATION = 6 };

int nvrtcVersion(int *major, int *minor) {
  *major = 13;
  *minor = 0;
  return SUCCESS;
}

static int made, little; /* little: the last source had one line and compiles */

int nvrtcCreateProgram(void **program, const char *source) { /* other arguments are ignored */
  const char *compiles = getenv("MPTL_SPEC_COMPILES");
  *program = &made;
  little = compiles != NULL && strcmp(compiles, "little") == 0 && strlen(source) < 80;
  return SUCCESS;
}

int nvrtcCompileProgram(void *program) {
  (void)program;
  return little ? SUCCESS : ERROR_COMPILATION;
}

const char *nvrtcGetErrorString(int error) {
  return error == ERROR_COMPILATION ? "NVRTC_ERROR_COMPILATION" : "another error";
}

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
FAILS(nvrtcGetPTXSize)
FAILS(nvrtcGetPTX)
FAILS(nvrtcGetCUBINSize)
FAILS(nvrtcGetCUBIN)

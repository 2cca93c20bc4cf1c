/* A plug-in that reports that there is no GPU. */
#include "backend/plugin.h"

static const char *libraries(void) { return "no library"; }

static mptl_status count(int *devices) {
  (void)devices;
  return mptl_fail(MPTL_EUNSUPPORTED, "no NVIDIA driver");
}

const mptl_plugin mptl_plugin_exported = {.abi = MPTL_PLUGIN_ABI,
                                          .backend_bytes = sizeof(mptl_backend),
                                          .call_bytes = sizeof(mptl_call),
                                          .libraries = libraries,
                                          .count = count};

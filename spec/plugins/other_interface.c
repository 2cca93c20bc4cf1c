/* A plug-in of another version of mptl. */
#include "backend/plugin.h"

const mptl_plugin mptl_plugin_exported = {.abi = MPTL_PLUGIN_ABI + 1,
                                          .backend_bytes = sizeof(mptl_backend),
                                          .call_bytes = sizeof(mptl_call)};

/* Finds and opens the CUDA plug-in. */
#include "backend/plugin.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const mptl_plugin *found;
static char problem[640]; /* the message, if no plug-in was found */

/* Writes the path of the plug-in, which is in the folder of this library. */
static void find_path(char *path, size_t size) {
  Dl_info here;
  const char *slash = dladdr((void *)&once, &here) != 0 ? strrchr(here.dli_fname, '/') : NULL;
  if (slash == NULL)
    snprintf(path, size, "libmptl_cuda.so");
  else
    snprintf(path, size, "%.*s/libmptl_cuda.so", (int)(slash - here.dli_fname), here.dli_fname);
}

/* Sets found or problem. */
static void open_plugin(void) {
  char path[512];
  const char *given = getenv("MPTL_CUDA_PLUGIN");
  if (given != NULL && strcmp(given, "none") == 0) {
    snprintf(problem, sizeof problem, "switched off by MPTL_CUDA_PLUGIN=none");
    return;
  }
  if (given != NULL)
    snprintf(path, sizeof path, "%s", given);
  else
    find_path(path, sizeof path);
  if (access(path, F_OK) != 0) {
    snprintf(
        problem, sizeof problem, "no plug-in %s%s", path,
        given ? " (MPTL_CUDA_PLUGIN)" : ": it is built where CMake finds a CUDA toolkit and cuDNN");
    return;
  }
  char *whole = realpath(path, NULL); /* dlopen searches other folders for a name without a slash */
  void *library = dlopen(whole != NULL ? whole : path, RTLD_NOW | RTLD_LOCAL);
  free(whole);
  if (library == NULL) {
    snprintf(problem, sizeof problem, "the plug-in cannot be opened: %.500s", dlerror());
    return;
  }
  const mptl_plugin *plugin = dlsym(library, "mptl_plugin_exported");
  if (plugin == NULL)
    snprintf(problem, sizeof problem, "%s is no plug-in of mptl", path);
  else if (plugin->abi != MPTL_PLUGIN_ABI || plugin->backend_bytes != sizeof(mptl_backend) ||
           plugin->call_bytes != sizeof(mptl_call))
    snprintf(problem, sizeof problem,
             "%s was built for another version of mptl (interface %u, this one has %u)", path,
             (unsigned)plugin->abi, (unsigned)MPTL_PLUGIN_ABI);
  else
    found = plugin;
  if (found == NULL) dlclose(library);
}

mptl_status mptl_plugin_cuda(const mptl_plugin **plugin) {
  pthread_once(&once, open_plugin);
  *plugin = found;
  return found != NULL ? MPTL_OK : mptl_fail(MPTL_EUNSUPPORTED, "%s", problem);
}

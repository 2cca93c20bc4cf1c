/* Chooses the instruction set of the CPU kernels, once, by MPTL_ISA in the environment, else by what the processor reports. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/table.h"
#include "mptl/isa.h"

extern const mptl_cpu_kernels mptl_cpu_kernels_scalar;
#if defined(__x86_64__)
extern const mptl_cpu_kernels mptl_cpu_kernels_avx2, mptl_cpu_kernels_avx512;
#endif

static _Atomic(const mptl_cpu_kernels *) chosen;

/* The table of that name if this processor can run it, else NULL; "auto" gives the widest. */
static const mptl_cpu_kernels *find(const char *name) {
  int any = strcmp(name, "auto") == 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  int avx2 = __builtin_cpu_supports("avx2");
  int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  if (avx512 && (any || strcmp(name, "avx512") == 0)) return &mptl_cpu_kernels_avx512;
  if (avx2 && (any || strcmp(name, "avx2") == 0)) return &mptl_cpu_kernels_avx2;
#endif
  return any || strcmp(name, "scalar") == 0 ? &mptl_cpu_kernels_scalar : NULL;
}

/* What "auto" stands for: the name in MPTL_ISA, where that is set. */
static const char *meant(const char *name) {
  const char *wish = strcmp(name, "auto") == 0 ? getenv("MPTL_ISA") : NULL;
  return wish != NULL && wish[0] != '\0' ? wish : name;
}

const mptl_cpu_kernels *mptl_cpu_kernels_get(void) {
  const mptl_cpu_kernels *table = atomic_load_explicit(&chosen, memory_order_acquire);
  if (table != NULL) return table;
  table = find(meant("auto"));
  if (table == NULL) table = find("auto");                     /* mptl_isa_select tells what is wrong */
  atomic_store_explicit(&chosen, table, memory_order_release); /* threads that race here all find the same */
  return table;
}

const char *mptl_isa_here(size_t index) {
  static const char *const known[] = {"scalar", "avx2", "avx512"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (find(known[i]) != NULL && index-- == 0) return known[i];
  return NULL;
}

/* "scalar, avx2, auto" */
static void list_accepted(char *text, size_t size) {
  const char *name;
  size_t used = 0;
  for (size_t i = 0; (name = mptl_isa_here(i)) != NULL; i++) used += (size_t)snprintf(text + used, size - used, "%s, ", name);
  snprintf(text + used, size - used, "auto");
}

mptl_status mptl_isa_select(const char *name) {
  const char *wish = meant(name), *from = wish != name ? "MPTL_ISA: " : "";
  const mptl_cpu_kernels *table = find(wish);
  if (table != NULL) {
    atomic_store_explicit(&chosen, table, memory_order_release);
    return MPTL_OK;
  }
  char accepted[64];
  list_accepted(accepted, sizeof accepted);
  if (strcmp(wish, "avx2") == 0 || strcmp(wish, "avx512") == 0)
    return mptl_fail(MPTL_EUNSUPPORTED, "%sinstruction set %s: not here, accepted are %s", from, wish, accepted);
  return mptl_fail(MPTL_EINVAL, "%sinstruction set %.60s: accepted are %s", from, wish, accepted);
}

const char *mptl_isa_name(void) { return mptl_cpu_kernels_get()->isa; }

const mptl_layer_kernels *mptl_layers(void) { return mptl_cpu_kernels_get()->layers; }

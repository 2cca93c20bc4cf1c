/* Chooses the instruction set of the CPU kernels, once, by what the processor reports. */
#include <stdatomic.h>
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

const mptl_cpu_kernels *mptl_cpu_kernels_get(void) {
  const mptl_cpu_kernels *table = atomic_load_explicit(&chosen, memory_order_acquire);
  if (table != NULL) return table;
  const char *wish = getenv("MPTL_ISA");
  table = wish != NULL ? find(wish) : NULL;
  if (table == NULL) table = find("auto");
  atomic_store_explicit(&chosen, table, memory_order_release); /* threads that race here all find the same */
  return table;
}

mptl_status mptl_isa_select(const char *name) {
  static const char *const known[] = {"scalar", "avx2", "avx512", "auto"};
  const mptl_cpu_kernels *table = find(name);
  if (table != NULL) {
    atomic_store_explicit(&chosen, table, memory_order_release);
    return MPTL_OK;
  }
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(name, known[i]) == 0)
      return mptl_fail(MPTL_EUNSUPPORTED, "instruction set %s: this processor does not have it", name);
  return mptl_fail(MPTL_EINVAL, "instruction set %.60s: accepted are scalar, avx2, avx512, auto", name);
}

const char *mptl_isa_name(void) { return mptl_cpu_kernels_get()->isa; }

const mptl_layer_kernels *mptl_layers(void) { return mptl_cpu_kernels_get()->layers; }

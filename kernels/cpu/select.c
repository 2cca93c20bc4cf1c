/* Chooses the instruction set of the CPU kernels once: the one in the environment variable
 * MPTL_ISA, else the widest that the processor reports. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/table.h"
#include "mptl/isa.h"

extern const mptl_cpu_kernels mptl_cpu_kernels_scalar, mptl_cpu_kernels_neon, mptl_cpu_kernels_avx2,
    mptl_cpu_kernels_avx512;

/* ---- The instruction sets ---- */

static bool always(void) { return true; }
static bool never(void) { return false; }

#if defined(__x86_64__)

static bool has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}

#endif

/* From the narrowest to the widest. */
static const struct {
  const char *name;
  bool (*is_here)(void);
  const mptl_cpu_kernels *kernels; /* NULL: not in this build */
} isas[] = {
    {"scalar", always, &mptl_cpu_kernels_scalar},
#if defined(__x86_64__)
    {"neon", never, NULL},
    {"avx2", has_avx2, &mptl_cpu_kernels_avx2},
    {"avx512", has_avx512, &mptl_cpu_kernels_avx512},
#elif defined(__aarch64__)
    {"neon", always, &mptl_cpu_kernels_neon}, /* part of the architecture */
    {"avx2", never, NULL},
    {"avx512", never, NULL},
#else
    {"neon", never, NULL},
    {"avx2", never, NULL},
    {"avx512", never, NULL},
#endif
};

enum { ISAS = sizeof isas / sizeof *isas };

/* The index of a name in isas; -1 for another name. */
static int index_of(const char *name) {
  for (int i = 0; i < ISAS; i++)
    if (strcmp(name, isas[i].name) == 0) return i;
  return -1;
}

/* The kernels of an instruction set, NULL unless this processor and build have it; "auto" is the
 * widest. */
static const mptl_cpu_kernels *find(const char *name) {
  int i = index_of(name);
  if (i >= 0) return isas[i].is_here() ? isas[i].kernels : NULL;
  if (strcmp(name, "auto") != 0) return NULL;
  i = ISAS - 1;
  while (!isas[i].is_here()) i--;
  return isas[i].kernels;
}

/* ---- The choice ---- */

static _Atomic(const mptl_cpu_kernels *) chosen;

/* Resolves "auto" to the name in MPTL_ISA, if that is set. */
static const char *meant(const char *name) {
  const char *wish = strcmp(name, "auto") == 0 ? getenv("MPTL_ISA") : NULL;
  return wish != NULL && wish[0] != '\0' ? wish : name;
}

const mptl_cpu_kernels *mptl_cpu_kernels_get(void) {
  const mptl_cpu_kernels *table = atomic_load_explicit(&chosen, memory_order_acquire);
  if (table != NULL) return table;
  table = find(meant("auto"));
  if (table == NULL) table = find("auto"); /* mptl_isa_select reports a wrong MPTL_ISA */
  atomic_store_explicit(&chosen, table,
                        memory_order_release); /* several threads may get here, and find the same */
  return table;
}

const char *mptl_isa_here(size_t index) {
  for (int i = 0; i < ISAS; i++)
    if (isas[i].is_here() && index-- == 0) return isas[i].name;
  return NULL;
}

/* Writes the accepted names: "scalar, avx2, auto". */
static void list_accepted(char *text, size_t size) {
  const char *name;
  size_t used = 0;
  for (size_t i = 0; (name = mptl_isa_here(i)) != NULL; i++)
    used += (size_t)snprintf(text + used, size - used, "%s, ", name);
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
  if (index_of(wish) >= 0)
    return mptl_fail(
        MPTL_EUNSUPPORTED,
        "%sinstruction set %s: this processor or build does not have it, accepted are %s", from,
        wish, accepted);
  return mptl_fail(MPTL_EINVAL, "%sinstruction set %.60s: accepted are %s", from, wish, accepted);
}

const char *mptl_isa_name(void) { return mptl_cpu_kernels_get()->isa; }

const mptl_layer_kernels *mptl_layers(void) { return mptl_cpu_kernels_get()->layers; }
const mptl_product_kernels *mptl_products(void) { return mptl_cpu_kernels_get()->products; }

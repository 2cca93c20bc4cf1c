/* Chooses the instruction set of the CPU kernels once: the one in the environment variable
 * MPTL_ISA, else the widest that the processor reports. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/table.h"
#include "mptl/isa.h"

extern const mptl_cpu_kernels mptl_cpu_kernels_scalar, mptl_cpu_kernels_neon, mptl_cpu_kernels_avx2,
    mptl_cpu_kernels_avx512;
extern const mptl_bf16_kernels mptl_bf16_avx512, mptl_bf16_amx;

/* ---- The instruction sets ---- */

static bool always(void) { return true; }
static bool never(void) { return false; }

#if defined(__x86_64__)

static bool has_avx2(void) {
  __builtin_cpu_init();
  unsigned a, b, c, d;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx512(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}

#ifdef MPTL_HAVE_BF16

static bool has_avx512_bf16(void) {
  unsigned a, b, c, d;
  return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1) != 0;
}

/* AMX with its type bf16, if the kernel lets this process use the registers of tiles. */
static bool has_amx(void) {
  enum { REQUEST_STATE = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */
  unsigned a, b, c, d;
  return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) != 0 &&
         (d >> 24 & 1) != 0 && syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0;
}

#endif

#endif

/* An instruction set: the kernels of one may be part of another one. */
typedef struct isa {
  const char *name;
  bool (*is_here)(void);
  const mptl_cpu_kernels *kernels; /* NULL: not in this build */
  const mptl_bf16_kernels *bf16;   /* NULL: none */
} isa;

/* From the narrowest to the widest. */
static const isa isas[] = {
    {"scalar", always, &mptl_cpu_kernels_scalar, NULL},
#if defined(__aarch64__)
    {"neon", always, &mptl_cpu_kernels_neon, NULL}, /* part of the architecture */
#else
    {"neon", never, NULL, NULL},
#endif
#if defined(__x86_64__)
    {"avx2", has_avx2, &mptl_cpu_kernels_avx2, NULL},
    {"avx512", has_avx512, &mptl_cpu_kernels_avx512, NULL},
#else
    {"avx2", never, NULL, NULL},
    {"avx512", never, NULL, NULL},
#endif
#ifdef MPTL_HAVE_BF16
    {"avx512_bf16", has_avx512_bf16, &mptl_cpu_kernels_avx512, &mptl_bf16_avx512},
    {"amx", has_amx, &mptl_cpu_kernels_avx512, &mptl_bf16_amx},
#else
    {"avx512_bf16", never, NULL, NULL},
    {"amx", never, NULL, NULL},
#endif
};

enum { ISAS = sizeof isas / sizeof *isas };

/* The index of a name in isas; -1 for another name. */
static int index_of(const char *name) {
  for (int i = 0; i < ISAS; i++)
    if (strcmp(name, isas[i].name) == 0) return i;
  return -1;
}

/* An instruction set, NULL unless this processor and build have it; "auto" is the widest. */
static const isa *find(const char *name) {
  int i = index_of(name);
  if (i >= 0) return isas[i].is_here() ? &isas[i] : NULL;
  if (strcmp(name, "auto") != 0) return NULL;
  i = ISAS - 1;
  while (!isas[i].is_here()) i--;
  return &isas[i];
}

/* ---- The choice ---- */

static _Atomic(const isa *) chosen;

/* Resolves "auto" to the name in MPTL_ISA, if that is set. */
static const char *meant(const char *name) {
  const char *wish = strcmp(name, "auto") == 0 ? getenv("MPTL_ISA") : NULL;
  return wish != NULL && wish[0] != '\0' ? wish : name;
}

static const isa *get(void) {
  const isa *here = atomic_load_explicit(&chosen, memory_order_acquire);
  if (here != NULL) return here;
  here = find(meant("auto"));
  if (here == NULL) here = find("auto"); /* mptl_isa_select reports a wrong MPTL_ISA */
  atomic_store_explicit(&chosen, here,
                        memory_order_release); /* several threads may get here, and find the same */
  return here;
}

const mptl_cpu_kernels *mptl_cpu_kernels_get(void) { return get()->kernels; }

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
  const isa *here = find(wish);
  if (here != NULL) {
    atomic_store_explicit(&chosen, here, memory_order_release);
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

const char *mptl_isa_name(void) { return get()->name; }

const mptl_code_kernels *mptl_codes(void) { return mptl_cpu_kernels_get()->codes; }
const mptl_norm_kernels *mptl_norm(void) { return mptl_cpu_kernels_get()->norm; }
const mptl_layer_kernels *mptl_layers(void) { return mptl_cpu_kernels_get()->layers; }
const mptl_product_kernels *mptl_products(void) { return mptl_cpu_kernels_get()->products; }
const mptl_bf16_kernels *mptl_bf16(void) { return get()->bf16; }

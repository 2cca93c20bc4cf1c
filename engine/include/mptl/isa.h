/* The instruction set that the CPU kernels use. All of them give the same bits, but for products in
 * bf16, which "avx512_bf16" and "amx" add to those of "avx512". */
#ifndef MPTL_ISA_H
#define MPTL_ISA_H

#include <stddef.h>

#include "mptl/status.h"

/* Chooses "scalar", "neon", "avx2", "avx512", "avx512_bf16", "amx" or "auto", for specs and
 * comparisons; no other thread may be inside a kernel. "auto" is the one in the environment
 * variable MPTL_ISA or, if that is not set, the widest of the processor. MPTL_EINVAL for another
 * name, MPTL_EUNSUPPORTED if the processor or the build lacks it; both also for the name in
 * MPTL_ISA. Before the first call "auto" is in use, and an MPTL_ISA that is not available is
 * ignored. */
MPTL_API mptl_status mptl_isa_select(const char *name);

/* The names of the instruction sets that this processor and this build have, by index from 0; NULL
 * after the last. */
MPTL_API const char *mptl_isa_here(size_t index);

/* The name of the instruction set in use. */
MPTL_API const char *mptl_isa_name(void);

#endif

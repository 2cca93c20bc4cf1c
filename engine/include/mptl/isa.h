/* The instruction set that the CPU kernels use. All of them give the same bits. */
#ifndef MPTL_ISA_H
#define MPTL_ISA_H

#include <stddef.h>

#include "mptl/status.h"

/* Chooses "scalar", "avx2", "avx512" or "auto": what the environment variable MPTL_ISA names, or, where it is not set, the widest
 * the processor has. Meant for tests and comparisons: not while another thread is inside a kernel. MPTL_EINVAL for another name,
 * MPTL_EUNSUPPORTED when the processor or the build lacks it, in MPTL_ISA, too. Until it is called, "auto" holds, and MPTL_ISA is
 * ignored when it cannot be had. */
MPTL_API mptl_status mptl_isa_select(const char *name);

/* The names of those that this processor and this build have, by index from 0 on; NULL beyond the last. */
MPTL_API const char *mptl_isa_here(size_t index);

/* The name of the one in use. */
MPTL_API const char *mptl_isa_name(void);

#endif

/* The instruction set that the CPU kernels use. All of them give the same bits. */
#ifndef MPTL_ISA_H
#define MPTL_ISA_H

#include "mptl/status.h"

/* Chooses "scalar", "avx2", "avx512" or "auto" (the widest the processor has). Meant for tests and comparisons: not while
 * another thread is inside a kernel. MPTL_EINVAL for another name, MPTL_EUNSUPPORTED when the processor or the build lacks it.
 * Until it is called, the environment variable MPTL_ISA chooses (ignored when it cannot be had), else auto. */
MPTL_API mptl_status mptl_isa_select(const char *name);

/* The name of the one in use. */
MPTL_API const char *mptl_isa_name(void);

#endif

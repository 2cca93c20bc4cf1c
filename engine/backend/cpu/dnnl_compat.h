/* What differs between oneDNN 2.6 and 3.x, behind one spelling: memory descriptors (a struct there, a handle here) and the
 * descriptors of primitives (made from an operation descriptor there, directly here). Nothing else includes a version number. */
#ifndef MPTL_BACKEND_CPU_DNNL_COMPAT_H
#define MPTL_BACKEND_CPU_DNNL_COMPAT_H

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>

#include "backend/cpu/dnn.h"

#if DNNL_VERSION_MAJOR < 3
typedef dnnl_memory_desc_t *mptl_md;
typedef const dnnl_memory_desc_t *mptl_const_md;
#else
typedef dnnl_memory_desc_t mptl_md;
typedef const_dnnl_memory_desc_t mptl_const_md;
#endif

/* A memory descriptor of the caller's; mptl_md_destroy accepts NULL. */
dnnl_status_t mptl_md_create(mptl_md *md, int ndims, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag);
void mptl_md_destroy(mptl_md md);

/* Operands by role: x is the source or its gradient, y the destination or its gradient, bias may be NULL. */
typedef struct mptl_dnnl_operands {
  mptl_md x, weights, bias, y;
} mptl_dnnl_operands;

/* Strides, dilations minus one, padding before and after, by spatial dimension. */
typedef struct mptl_dnnl_window {
  dnnl_dims_t strides, dilates, before, after;
} mptl_dnnl_window;

/* The descriptor of a pass: of a convolution, or of an inner product if window is NULL. forward is the descriptor of the forward
 * pass with the same types, NULL for MPTL_FORWARD itself. oneDNN's first choice of code, but for one that computes wrong results. */
dnnl_status_t mptl_dnnl_describe(dnnl_primitive_desc_t *pd, mptl_pass pass, const mptl_dnnl_operands *operands,
                                 const mptl_dnnl_window *window, bool training, const_dnnl_primitive_desc_t forward,
                                 const_dnnl_primitive_attr_t attr, dnnl_engine_t engine);

/* oneDNN's name of the code that a description would run ("jit:avx512_core"). */
const char *mptl_dnnl_implementation(const_dnnl_primitive_desc_t pd);

/* Attributes of every primitive: scratchpad by the caller, no narrower arithmetic than the operands' types, whatever oneDNN's
 * environment variables say, and repeatable sums. */
dnnl_status_t mptl_dnnl_attributes(dnnl_primitive_attr_t *attr);

#endif

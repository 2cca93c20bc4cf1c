/* One interface for oneDNN 2.6 and 3.x, which differ in memory descriptors (a struct in 2.6, a
 * handle in 3.x) and in descriptors of primitives (made from an operation descriptor in 2.6,
 * directly in 3.x). No other file depends on the version. */
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

/* Creates a memory descriptor, which the caller destroys. mptl_md_destroy accepts NULL. */
dnnl_status_t mptl_md_create(mptl_md *md, int ndims, const dnnl_dims_t dims, dnnl_data_type_t type,
                             dnnl_format_tag_t tag);
void mptl_md_destroy(mptl_md md);

/* Operands by role: x is the source or its gradient, y the destination or its gradient. bias may be
 * NULL. */
typedef struct mptl_dnnl_operands {
  mptl_md x, weights, bias, y;
} mptl_dnnl_operands;

/* The window of a convolution, by spatial dimension: strides, dilations minus 1, padding at both
 * ends. */
typedef struct mptl_dnnl_window {
  dnnl_dims_t strides, dilates, before, after;
} mptl_dnnl_window;

/* Creates the descriptor of a pass, of a convolution, or of an inner product if window is NULL. It
 * has the first of oneDNN's implementations that is not known to be wrong. forward: the descriptor
 * of the forward pass with the same types; NULL for MPTL_FORWARD. */
dnnl_status_t mptl_dnnl_describe(dnnl_primitive_desc_t *pd, mptl_pass pass,
                                 const mptl_dnnl_operands *operands, const mptl_dnnl_window *window,
                                 bool training, const_dnnl_primitive_desc_t forward,
                                 const_dnnl_primitive_attr_t attr, dnnl_engine_t engine);

/* oneDNN's name of a descriptor's implementation ("jit:avx512_core"). */
const char *mptl_dnnl_implementation(const_dnnl_primitive_desc_t pd);

/* Creates the attributes of every primitive: the caller gives the scratchpad; arithmetic is never
 * narrower than the types of the operands, whatever oneDNN's environment variables say; sums are
 * repeatable (from 3.4 on by an attribute). */
dnnl_status_t mptl_dnnl_attributes(dnnl_primitive_attr_t *attr);

#endif

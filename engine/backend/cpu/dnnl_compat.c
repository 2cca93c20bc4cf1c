/* oneDNN 2.6 and 3.x behind one spelling. */
#include "backend/cpu/dnnl_compat.h"

#include <stdlib.h>
#include <string.h>

const char *mptl_dnnl_implementation(const_dnnl_primitive_desc_t pd) {
  const char *name = "";
  return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success ? name
                                                                                           : "";
}

/* Whether an implementation is known to be wrong. The 1x1 weight gradient for AVX2 writes beyond
 * its scratchpad if the source is strided NHWC with few channels (uxlfoundation/oneDNN issue 6035,
 * seen in 2.6.3). Strides are rare, so it is avoided for any number of channels. */
static bool is_broken(const_dnnl_primitive_desc_t pd, mptl_pass pass,
                      const mptl_dnnl_window *window) {
  bool strided = window != NULL && (window->strides[0] > 1 || window->strides[1] > 1);
  return pass == MPTL_BACKWARD_WEIGHTS && strided &&
         strcmp(mptl_dnnl_implementation(pd), "jit_1x1:avx2") == 0;
}

dnnl_status_t mptl_dnnl_attributes(dnnl_primitive_attr_t *attr) {
  dnnl_status_t status = dnnl_primitive_attr_create(attr);
  if (status != dnnl_success) return status;
  status = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
  if (status == dnnl_success)
    status = dnnl_primitive_attr_set_fpmath_mode(*attr, dnnl_fpmath_mode_strict);
#if DNNL_VERSION_MAJOR > 3 || (DNNL_VERSION_MAJOR == 3 && DNNL_VERSION_MINOR >= 4)
  if (status == dnnl_success) status = dnnl_primitive_attr_set_deterministic(*attr, 1);
#endif
  if (status != dnnl_success) {
    dnnl_primitive_attr_destroy(*attr);
    *attr = NULL;
  }
  return status;
}

#if DNNL_VERSION_MAJOR < 3

dnnl_status_t mptl_md_create(mptl_md *md, int ndims, const dnnl_dims_t dims, dnnl_data_type_t type,
                             dnnl_format_tag_t tag) {
  *md = malloc(sizeof **md);
  if (*md == NULL) return dnnl_out_of_memory;
  dnnl_status_t status = dnnl_memory_desc_init_by_tag(*md, ndims, dims, type, tag);
  if (status != dnnl_success) {
    free(*md);
    *md = NULL;
  }
  return status;
}

void mptl_md_destroy(mptl_md md) { free(md); }

static dnnl_status_t describe_conv(dnnl_convolution_desc_t *d, mptl_pass pass,
                                   const mptl_dnnl_operands *o, const mptl_dnnl_window *w,
                                   dnnl_prop_kind_t kind) {
  const dnnl_alg_kind_t direct = dnnl_convolution_direct;
  if (pass == MPTL_FORWARD)
    return dnnl_dilated_convolution_forward_desc_init(d, kind, direct, o->x, o->weights, o->bias,
                                                      o->y, w->strides, w->dilates, w->before,
                                                      w->after);
  if (pass == MPTL_BACKWARD_DATA)
    return dnnl_dilated_convolution_backward_data_desc_init(
        d, direct, o->x, o->weights, o->y, w->strides, w->dilates, w->before, w->after);
  return dnnl_dilated_convolution_backward_weights_desc_init(
      d, direct, o->x, o->weights, o->bias, o->y, w->strides, w->dilates, w->before, w->after);
}

static dnnl_status_t describe_linear(dnnl_inner_product_desc_t *d, mptl_pass pass,
                                     const mptl_dnnl_operands *o, dnnl_prop_kind_t kind) {
  if (pass == MPTL_FORWARD)
    return dnnl_inner_product_forward_desc_init(d, kind, o->x, o->weights, o->bias, o->y);
  if (pass == MPTL_BACKWARD_DATA)
    return dnnl_inner_product_backward_data_desc_init(d, o->x, o->weights, o->y);
  return dnnl_inner_product_backward_weights_desc_init(d, o->x, o->weights, o->bias, o->y);
}

dnnl_status_t mptl_dnnl_describe(dnnl_primitive_desc_t *pd, mptl_pass pass,
                                 const mptl_dnnl_operands *operands, const mptl_dnnl_window *window,
                                 bool training, const_dnnl_primitive_desc_t forward,
                                 const_dnnl_primitive_attr_t attr, dnnl_engine_t engine) {
  dnnl_prop_kind_t kind = training ? dnnl_forward_training : dnnl_forward_inference;
  dnnl_convolution_desc_t conv;
  dnnl_inner_product_desc_t linear;
  dnnl_status_t status = window != NULL ? describe_conv(&conv, pass, operands, window, kind)
                                        : describe_linear(&linear, pass, operands, kind);
  if (status != dnnl_success) return status;
  dnnl_primitive_desc_iterator_t choices;
  const_dnnl_op_desc_t desc =
      window != NULL ? (const_dnnl_op_desc_t)&conv : (const_dnnl_op_desc_t)&linear;
  status = dnnl_primitive_desc_iterator_create(&choices, desc, attr, engine, forward);
  if (status != dnnl_success) return status;
  for (;;) {
    *pd = dnnl_primitive_desc_iterator_fetch(choices);
    if (*pd == NULL || !is_broken(*pd, pass, window)) break;
    dnnl_primitive_desc_destroy(*pd);
    *pd = NULL;
    status = dnnl_primitive_desc_iterator_next(choices);
    if (status != dnnl_success) break;
  }
  dnnl_primitive_desc_iterator_destroy(choices);
  return *pd != NULL              ? dnnl_success
         : status == dnnl_success ? dnnl_out_of_memory
                                  : dnnl_unimplemented;
}

#else

dnnl_status_t mptl_md_create(mptl_md *md, int ndims, const dnnl_dims_t dims, dnnl_data_type_t type,
                             dnnl_format_tag_t tag) {
  return dnnl_memory_desc_create_with_tag(md, ndims, dims, type, tag);
}

void mptl_md_destroy(mptl_md md) {
  if (md != NULL) dnnl_memory_desc_destroy(md);
}

static dnnl_status_t describe(dnnl_primitive_desc_t *pd, mptl_pass pass,
                              const mptl_dnnl_operands *o, const mptl_dnnl_window *w, bool training,
                              const_dnnl_primitive_desc_t forward, const_dnnl_primitive_attr_t attr,
                              dnnl_engine_t engine) {
  const dnnl_alg_kind_t direct = dnnl_convolution_direct;
  dnnl_prop_kind_t kind = training ? dnnl_forward_training : dnnl_forward_inference;
  if (w == NULL) {
    if (pass == MPTL_FORWARD)
      return dnnl_inner_product_forward_primitive_desc_create(pd, engine, kind, o->x, o->weights,
                                                              o->bias, o->y, attr);
    if (pass == MPTL_BACKWARD_DATA)
      return dnnl_inner_product_backward_data_primitive_desc_create(pd, engine, o->x, o->weights,
                                                                    o->y, forward, attr);
    return dnnl_inner_product_backward_weights_primitive_desc_create(pd, engine, o->x, o->weights,
                                                                     o->bias, o->y, forward, attr);
  }
  if (pass == MPTL_FORWARD)
    return dnnl_convolution_forward_primitive_desc_create(pd, engine, kind, direct, o->x,
                                                          o->weights, o->bias, o->y, w->strides,
                                                          w->dilates, w->before, w->after, attr);
  if (pass == MPTL_BACKWARD_DATA)
    return dnnl_convolution_backward_data_primitive_desc_create(
        pd, engine, direct, o->x, o->weights, o->y, w->strides, w->dilates, w->before, w->after,
        forward, attr);
  return dnnl_convolution_backward_weights_primitive_desc_create(
      pd, engine, direct, o->x, o->weights, o->bias, o->y, w->strides, w->dilates, w->before,
      w->after, forward, attr);
}

dnnl_status_t mptl_dnnl_describe(dnnl_primitive_desc_t *pd, mptl_pass pass,
                                 const mptl_dnnl_operands *operands, const mptl_dnnl_window *window,
                                 bool training, const_dnnl_primitive_desc_t forward,
                                 const_dnnl_primitive_attr_t attr, dnnl_engine_t engine) {
  dnnl_status_t status = describe(pd, pass, operands, window, training, forward, attr, engine);
  while (status == dnnl_success && is_broken(*pd, pass, window))
    status = dnnl_primitive_desc_next_impl(*pd);
  return status;
}

#endif

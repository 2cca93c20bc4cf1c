/* Shapes of calls: see call_shapes.h. */
#include "backend/call_shapes.h"

mptl_call_shape mptl_call_shape_of(const mptl_call *call, int n, int ic, int oc) {
  mptl_shape in = mptl_call_input(call, 0), out = mptl_call_output(call);
  const mptl_attributes *a = &call->op->attr;
  if (call->op->kind->id == MPTL_OP_LINEAR)
    return (mptl_call_shape){
        .is_linear = true,
        .linear = {.n = n, .c = ic, .h = in.h, .w = in.w, .out = oc, .bias = a->bias}};
  return (mptl_call_shape){.conv = {.n = n,
                                    .ic = ic,
                                    .ih = in.h,
                                    .iw = in.w,
                                    .oc = oc,
                                    .oh = out.h,
                                    .ow = out.w,
                                    .kh = a->kernel[0],
                                    .kw = a->kernel[1],
                                    .sh = a->stride[0],
                                    .sw = a->stride[1],
                                    .ph = a->padding[0],
                                    .pw = a->padding[1],
                                    .dh = a->dilation[0],
                                    .dw = a->dilation[1],
                                    .groups = a->groups,
                                    .bias = a->bias}};
}

mptl_loss_shape mptl_call_loss(const mptl_call *call) {
  return (mptl_loss_shape){
      .batch = (size_t)call->batch,
      .n = mptl_call_features(call),
      .valid = (size_t)call->n_valid,
      .accuracy = mptl_counts_accuracy(call->op->kind,
                                       call->targets.labels != NULL ? MPTL_LABELS : MPTL_VALUES),
      .smoothing = call->op->attr.label_smoothing};
}

mptl_pool mptl_call_pool(const mptl_call *call) {
  mptl_shape in = mptl_call_input(call, 0), out = mptl_call_output(call);
  const mptl_attributes *a = &call->op->attr;
  return (mptl_pool){.batch = (size_t)call->batch,
                     .c = (size_t)in.c,
                     .ih = (size_t)in.h,
                     .iw = (size_t)in.w,
                     .oh = (size_t)out.h,
                     .ow = (size_t)out.w,
                     .kh = (size_t)a->kernel[0],
                     .kw = (size_t)a->kernel[1],
                     .sh = (size_t)a->stride[0],
                     .sw = (size_t)a->stride[1],
                     .ph = (size_t)a->padding[0],
                     .pw = (size_t)a->padding[1],
                     .without_padding = !a->count_include_pad};
}

/* Convolutions: from PyTorch's terms to oneDNN's. */
#include "backend/cpu/dnn_op.h"

/* Fills in one spatial dimension of the window. */
static void fill_dimension(mptl_dnnl_window *w, int axis, int in, int out, int kernel, int stride,
                           int pad, int dilation) {
  long long after =
      (long long)(out - 1) * stride + (long long)dilation * (kernel - 1) + 1 - in - pad;
  w->strides[axis] = stride;
  w->dilates[axis] = dilation - 1;
  w->before[axis] = pad;
  w->after[axis] =
      after > 0 ? after
                : 0; /* only as far as the last window: with a stride it may end inside the image */
}

mptl_status mptl_dnn_conv_create(mptl_dnn **op, int threads, const mptl_conv_shape *shape,
                                 const mptl_compute compute[MPTL_PASSES]) {
  const mptl_conv_shape *s = shape;
  mptl_dnn_problem p = {.x_ndims = 4,
                        .weights_ndims = s->groups > 1 ? 5 : 4,
                        .y_ndims = 4,
                        .bias = s->bias,
                        .windowed = true};
  *op = NULL;
  MPTL_TRY(mptl_conv_check(s));
  p.name = mptl_conv_name(s);
  fill_dimension(&p.window, 0, s->ih, s->oh, s->kh, s->sh, s->ph, s->dh);
  fill_dimension(&p.window, 1, s->iw, s->ow, s->kw, s->sw, s->pw, s->dw);
  const dnnl_dim_t x[] = {s->n, s->ic, s->ih, s->iw}, y[] = {s->n, s->oc, s->oh, s->ow};
  const dnnl_dim_t weights[] = {s->groups, s->oc / s->groups, s->ic / s->groups, s->kh, s->kw};
  int skip = s->groups > 1 ? 0 : 1;
  for (int i = 0; i < 4; i++) p.x[i] = x[i], p.y[i] = y[i];
  for (int i = 0; i < p.weights_ndims; i++) p.weights[i] = weights[i + skip];
  p.x_tag = p.y_tag = dnnl_nhwc;
  p.weights_tag = s->groups > 1 ? dnnl_goihw : dnnl_oihw;
  return mptl_dnn_create(op, threads, &p, compute);
}

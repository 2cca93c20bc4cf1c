/* Convolutions: from PyTorch's terms to oneDNN's. */
#include <stdio.h>

#include "backend/cpu/dnn_op.h"

static mptl_status check(const mptl_conv_shape *s, const char *name) {
  const struct {
    const char *name;
    int value, least;
  } fields[] = {{"batch", s->n, 1},         {"input channels", s->ic, 1},  {"input height", s->ih, 1},
                {"input width", s->iw, 1},  {"output channels", s->oc, 1}, {"kernel height", s->kh, 1},
                {"kernel width", s->kw, 1}, {"stride", s->sh, 1},          {"stride", s->sw, 1},
                {"padding", s->ph, 0},      {"padding", s->pw, 0},         {"dilation", s->dh, 1},
                {"dilation", s->dw, 1},     {"groups", s->groups, 1}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (fields[i].value < fields[i].least)
      return mptl_fail(MPTL_EINVAL, "%s: %s is %d, must be at least %d", name, fields[i].name, fields[i].value, fields[i].least);
  if (s->ic % s->groups != 0 || s->oc % s->groups != 0)
    return mptl_fail(MPTL_EINVAL, "%s: %d groups do not divide %d input and %d output channels", name, s->groups, s->ic, s->oc);
  return MPTL_OK;
}

/* Fills in one spatial dimension of the window; output is checked against PyTorch's formula. */
static mptl_status place(mptl_dnnl_window *w, int axis, int in, int out, int kernel, int stride, int pad, int dilation,
                         const char *name) {
  long long extent = (long long)dilation * (kernel - 1) + 1, room = in + 2LL * pad - extent;
  if (room < 0)
    return mptl_fail(MPTL_EINVAL, "%s: the kernel spans %lld, the padded input only %lld", name, extent, in + 2LL * pad);
  if (out != room / stride + 1)
    return mptl_fail(MPTL_EINVAL, "%s: output %s is %d, must be %lld", name, axis == 0 ? "height" : "width", out,
                     room / stride + 1);
  long long after = (long long)(out - 1) * stride + extent - in - pad;
  w->strides[axis] = stride;
  w->dilates[axis] = dilation - 1;
  w->before[axis] = pad;
  w->after[axis] = after > 0 ? after : 0; /* only what the last window reaches: the stride may leave rows unread */
  return MPTL_OK;
}

mptl_status mptl_dnn_conv_create(mptl_dnn **op, const mptl_conv_shape *shape, const mptl_compute compute[MPTL_PASSES]) {
  const mptl_conv_shape *s = shape;
  mptl_dnn_problem p = {.x_ndims = 4, .weights_ndims = s->groups > 1 ? 5 : 4, .y_ndims = 4, .bias = s->bias, .windowed = true};
  *op = NULL;
  snprintf(p.name, sizeof p.name,
           "conv2d %dx%dx%dx%d -> %dx%dx%d, kernel %dx%d, stride %dx%d, padding %dx%d, dilation %dx%d, groups %d", s->n, s->ic,
           s->ih, s->iw, s->oc, s->oh, s->ow, s->kh, s->kw, s->sh, s->sw, s->ph, s->pw, s->dh, s->dw, s->groups);
  MPTL_TRY(check(s, p.name));
  MPTL_TRY(place(&p.window, 0, s->ih, s->oh, s->kh, s->sh, s->ph, s->dh, p.name));
  MPTL_TRY(place(&p.window, 1, s->iw, s->ow, s->kw, s->sw, s->pw, s->dw, p.name));
  const dnnl_dim_t x[] = {s->n, s->ic, s->ih, s->iw}, y[] = {s->n, s->oc, s->oh, s->ow};
  const dnnl_dim_t weights[] = {s->groups, s->oc / s->groups, s->ic / s->groups, s->kh, s->kw};
  int skip = s->groups > 1 ? 0 : 1;
  for (int i = 0; i < 4; i++) p.x[i] = x[i], p.y[i] = y[i];
  for (int i = 0; i < p.weights_ndims; i++) p.weights[i] = weights[i + skip];
  p.x_tag = p.y_tag = dnnl_nhwc;
  p.weights_tag = s->groups > 1 ? dnnl_goihw : dnnl_oihw;
  return mptl_dnn_create(op, &p, compute);
}

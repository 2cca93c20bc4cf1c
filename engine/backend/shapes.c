/* Names of shapes, and what is wrong with one. */
#include "backend/shapes.h"

#include <stddef.h>
#include <stdio.h>

const char *mptl_pass_name(mptl_pass pass) {
  static const char *const names[MPTL_PASSES] = {"forward", "backward data", "backward weights"};
  return names[pass];
}

mptl_shape_name mptl_conv_name(const mptl_conv_shape *s) {
  mptl_shape_name name;
  snprintf(name.text, sizeof name.text,
           "conv2d %dx%dx%dx%d -> %dx%dx%d, kernel %dx%d, stride %dx%d, padding %dx%d, dilation %dx%d, groups %d", s->n, s->ic,
           s->ih, s->iw, s->oc, s->oh, s->ow, s->kh, s->kw, s->sh, s->sw, s->ph, s->pw, s->dh, s->dw, s->groups);
  return name;
}

mptl_shape_name mptl_linear_name(const mptl_linear_shape *s) {
  mptl_shape_name name;
  snprintf(name.text, sizeof name.text, "linear %dx%dx%dx%d -> %d", s->n, s->c, s->h, s->w, s->out);
  return name;
}

/* One spatial dimension, against PyTorch's formula. */
static mptl_status check_axis(const char *axis, int in, int out, int kernel, int stride, int pad, int dilation) {
  long long extent = (long long)dilation * (kernel - 1) + 1, room = in + 2LL * pad - extent;
  if (room < 0) return mptl_fail(MPTL_EINVAL, "the kernel spans %lld, the padded input only %lld", extent, in + 2LL * pad);
  if (out != room / stride + 1) return mptl_fail(MPTL_EINVAL, "output %s is %d, must be %lld", axis, out, room / stride + 1);
  return MPTL_OK;
}

static mptl_status check_conv(const mptl_conv_shape *s) {
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
      return mptl_fail(MPTL_EINVAL, "%s is %d, must be at least %d", fields[i].name, fields[i].value, fields[i].least);
  if (s->ic % s->groups != 0 || s->oc % s->groups != 0)
    return mptl_fail(MPTL_EINVAL, "%d groups do not divide %d input and %d output channels", s->groups, s->ic, s->oc);
  MPTL_TRY(check_axis("height", s->ih, s->oh, s->kh, s->sh, s->ph, s->dh));
  return check_axis("width", s->iw, s->ow, s->kw, s->sw, s->pw, s->dw);
}

mptl_status mptl_conv_check(const mptl_conv_shape *s) {
  mptl_status status = check_conv(s);
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "%s", mptl_conv_name(s).text);
}

mptl_status mptl_linear_check(const mptl_linear_shape *s) {
  const struct {
    const char *name;
    int value;
  } fields[] = {{"batch", s->n}, {"input channels", s->c}, {"input height", s->h}, {"input width", s->w}, {"outputs", s->out}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (fields[i].value < 1)
      return mptl_fail(MPTL_EINVAL, "%s: %s is %d, must be at least 1", mptl_linear_name(s).text, fields[i].name,
                       fields[i].value);
  return MPTL_OK;
}

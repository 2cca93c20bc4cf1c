/* Names, checks and sizes of shapes: see shapes.h. */
#include "backend/shapes.h"

#include <stdio.h>
#include <string.h>

const char *mptl_pass_name(mptl_pass pass) {
  static const char *const names[MPTL_PASSES] = {"forward", "backward data", "backward weights"};
  return names[pass];
}

mptl_pass_arrays mptl_arrays_of(mptl_pass pass) {
  static const mptl_pass_arrays of_passes[MPTL_PASSES] = {
      {MPTL_X, MPTL_W, MPTL_Y}, {MPTL_Y, MPTL_W, MPTL_X}, {MPTL_X, MPTL_Y, MPTL_W}};
  return of_passes[pass];
}

/* ---- Names ---- */

mptl_shape_name mptl_conv_name(const mptl_conv_shape *s) {
  mptl_shape_name name;
  snprintf(name.text, sizeof name.text,
           "conv2d %dx%dx%dx%d -> %dx%dx%d, kernel %dx%d, stride %dx%d, padding %dx%d, dilation "
           "%dx%d, groups %d",
           s->n, s->ic, s->ih, s->iw, s->oc, s->oh, s->ow, s->kh, s->kw, s->sh, s->sw, s->ph, s->pw,
           s->dh, s->dw, s->groups);
  return name;
}

mptl_shape_name mptl_linear_name(const mptl_linear_shape *s) {
  mptl_shape_name name;
  snprintf(name.text, sizeof name.text, "linear %dx%dx%dx%d -> %d", s->n, s->c, s->h, s->w, s->out);
  return name;
}

/* ---- Checks ---- */

/* Checks an output's height or width against PyTorch's formula. */
static mptl_status check_axis(const char *axis, int in, int out, int kernel, int stride, int pad,
                              int dilation) {
  long long extent = (long long)dilation * (kernel - 1) + 1, room = in + 2LL * pad - extent;
  if (room < 0)
    return mptl_fail(MPTL_EINVAL, "the kernel spans %lld, the padded input only %lld", extent,
                     in + 2LL * pad);
  if (out != room / stride + 1)
    return mptl_fail(MPTL_EINVAL, "output %s is %d, must be %lld", axis, out, room / stride + 1);
  return MPTL_OK;
}

static mptl_status check_conv(const mptl_conv_shape *s) {
  const struct {
    const char *name;
    int value, least;
  } fields[] = {
      {"batch", s->n, 1},         {"input channels", s->ic, 1},  {"input height", s->ih, 1},
      {"input width", s->iw, 1},  {"output channels", s->oc, 1}, {"kernel height", s->kh, 1},
      {"kernel width", s->kw, 1}, {"stride", s->sh, 1},          {"stride", s->sw, 1},
      {"padding", s->ph, 0},      {"padding", s->pw, 0},         {"dilation", s->dh, 1},
      {"dilation", s->dw, 1},     {"groups", s->groups, 1}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (fields[i].value < fields[i].least)
      return mptl_fail(MPTL_EINVAL, "%s is %d, must be at least %d", fields[i].name,
                       fields[i].value, fields[i].least);
  if (s->ic % s->groups != 0 || s->oc % s->groups != 0)
    return mptl_fail(MPTL_EINVAL, "%d channel groups do not divide %d input and %d output channels",
                     s->groups, s->ic, s->oc);
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
  } fields[] = {{"batch", s->n},
                {"input channels", s->c},
                {"input height", s->h},
                {"input width", s->w},
                {"outputs", s->out}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (fields[i].value < 1)
      return mptl_fail(MPTL_EINVAL, "%s: %s is %d, must be at least 1", mptl_linear_name(s).text,
                       fields[i].name, fields[i].value);
  return MPTL_OK;
}

/* ---- Products ---- */

bool mptl_same_products(const mptl_conv_shape *a, const mptl_conv_shape *b) {
  return memcmp(a, b, offsetof(mptl_conv_shape, bias)) == 0;
}

mptl_conv_shape mptl_linear_as_conv(const mptl_linear_shape *s) {
  mptl_conv_shape conv = {
      .n = s->n, .ic = s->c * s->h * s->w, .oc = s->out, .groups = 1, .bias = s->bias};
  conv.ih = conv.iw = conv.oh = conv.ow = conv.kh = conv.kw = 1;
  conv.sh = conv.sw = conv.dh = conv.dw = 1;
  return conv;
}

static size_t numel(int a, int b, int c, int d) {
  return (size_t)a * (size_t)b * (size_t)c * (size_t)d;
}

mptl_conv_sizes mptl_conv_sizes_of(const mptl_conv_shape *s) {
  return (mptl_conv_sizes){{[MPTL_X] = numel(s->n, s->ih, s->iw, s->ic),
                            [MPTL_W] = numel(s->oc, s->kh, s->kw, s->ic / s->groups),
                            [MPTL_Y] = numel(s->n, s->oh, s->ow, s->oc)}};
}

uint64_t mptl_conv_terms(const mptl_conv_shape *s, mptl_pass pass) {
  const size_t terms[MPTL_PASSES] = {numel(s->kh, s->kw, s->ic / s->groups, 1),
                                     numel(s->kh, s->kw, s->oc / s->groups, 1),
                                     numel(s->n, s->oh, s->ow, 1)};
  return terms[pass];
}

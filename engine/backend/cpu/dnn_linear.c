/* Linear operators: inner products over a whole NHWC value, or plain matrix products if it has one
 * pixel. */
#include "backend/cpu/dnn_op.h"

mptl_status mptl_dnn_linear_create(mptl_dnn **op, int threads, const mptl_linear_shape *shape,
                                   const mptl_compute compute[MPTL_PASSES]) {
  const mptl_linear_shape *s = shape;
  const int ndims = s->h == 1 && s->w == 1 ? 2 : 4;
  mptl_dnn_problem p = {.x_ndims = ndims, .weights_ndims = ndims, .y_ndims = 2, .bias = s->bias};
  *op = NULL;
  MPTL_TRY(mptl_linear_check(s));
  p.name = mptl_linear_name(s);
  const dnnl_dim_t x[] = {s->n, s->c, s->h, s->w}, weights[] = {s->out, s->c, s->h, s->w};
  for (int i = 0; i < ndims; i++) p.x[i] = x[i], p.weights[i] = weights[i];
  p.y[0] = s->n, p.y[1] = s->out;
  p.x_tag = ndims == 2 ? dnnl_nc : dnnl_nhwc;
  p.weights_tag = ndims == 2 ? dnnl_oi : dnnl_oihw;
  p.y_tag = dnnl_nc;
  return mptl_dnn_create(op, threads, &p, compute);
}

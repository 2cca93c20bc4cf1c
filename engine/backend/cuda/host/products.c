/* Products by their definition, for tests: each result a sum in binary32, in a fixed order. A linear layer is a convolution of images of
 * one pixel.
 */
#include "backend/cuda/products.h"

#include <stdlib.h>

#include "backend/cuda/runtime.h"
#include "kernels/round.h"

struct mptl_cuda_product {
  mptl_conv_shape s;
  mptl_pass pass;
  mptl_cuda_type type;
};

static mptl_status create(mptl_cuda_product **product, const mptl_conv_shape *shape, mptl_pass pass, mptl_cuda_type type) {
  MPTL_TRY(mptl_conv_check(shape));
  *product = malloc(sizeof **product);
  if (*product == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  **product = (mptl_cuda_product){.s = *shape, .pass = pass, .type = type};
  return MPTL_OK;
}

mptl_status mptl_cuda_product_conv(mptl_cuda_product **product, const mptl_conv_shape *shape, mptl_pass pass,
                                   mptl_cuda_type type) {
  return create(product, shape, pass, type);
}

mptl_status mptl_cuda_product_linear(mptl_cuda_product **product, const mptl_linear_shape *s, mptl_pass pass,
                                     mptl_cuda_type type) {
  mptl_conv_shape shape = {.n = s->n, .ic = s->c * s->h * s->w, .oc = s->out, .groups = 1};
  shape.ih = shape.iw = shape.oh = shape.ow = shape.kh = shape.kw = shape.sh = shape.sw = shape.dh = shape.dw = 1;
  return create(product, &shape, pass, type);
}

void mptl_cuda_product_destroy(mptl_cuda_product *product) { free(product); }

/* Asked for, so that whoever gives too little of it is found. */
enum { WORKSPACE = 1024 };
size_t mptl_cuda_product_workspace_bytes(const mptl_cuda_product *product) {
  (void)product;
  return WORKSPACE;
}

const char *mptl_cuda_products_libraries(void) { return "no library"; }

/* ---- Operands ---- */

/* n values in binary32. TF32 units take 11 significant bits: whoever gives more is found here. */
static float *read_operand(const void *p, mptl_cuda_type type, size_t n, bool *exact) {
  float *values = malloc(n * sizeof *values);
  for (size_t i = 0; values != NULL && i < n; i++) {
    values[i] = type == MPTL_CUDA_BF16 ? mptl_bits_f32((uint32_t)((const uint16_t *)p)[i] << 16) : ((const float *)p)[i];
    if (type == MPTL_CUDA_TF32 && (mptl_f32_bits(values[i]) & 0x1fff) != 0) *exact = false;
  }
  return values;
}

static size_t x_numel(const mptl_conv_shape *s) { return (size_t)s->n * (size_t)s->ih * (size_t)s->iw * (size_t)s->ic; }
static size_t y_numel(const mptl_conv_shape *s) { return (size_t)s->n * (size_t)s->oh * (size_t)s->ow * (size_t)s->oc; }
static size_t w_numel(const mptl_conv_shape *s) {
  return (size_t)s->oc * (size_t)s->kh * (size_t)s->kw * (size_t)(s->ic / s->groups);
}

/* ---- Sums ---- */

static size_t pixel(int n, int h, int w, int height, int width) {
  return ((size_t)n * (size_t)height + (size_t)h) * (size_t)width + (size_t)w;
}

/* Calls of add(x's element, weight's element, y's element) for every product of an image's row of outputs. */
#define EACH_PRODUCT(s, n, oh, body)                                                                  \
  for (int ow = 0; ow < (s)->ow; ow++)                                                                \
    for (int k = 0; k < (s)->oc; k++)                                                                 \
      for (int r = 0; r < (s)->kh; r++)                                                               \
        for (int q = 0; q < (s)->kw; q++) {                                                           \
          int ih = (oh) * (s)->sh + r * (s)->dh - (s)->ph, iw = ow * (s)->sw + q * (s)->dw - (s)->pw; \
          if (ih < 0 || ih >= (s)->ih || iw < 0 || iw >= (s)->iw) continue;                           \
          int count = (s)->ic / (s)->groups, first = k / ((s)->oc / (s)->groups) * count;             \
          for (int c = 0; c < count; c++) {                                                           \
            size_t xi = pixel(n, ih, iw, (s)->ih, (s)->iw) * (size_t)(s)->ic + (size_t)(first + c);   \
            size_t wi = pixel(k, r, q, (s)->kh, (s)->kw) * (size_t)count + (size_t)c;                 \
            size_t yi = pixel(n, oh, ow, (s)->oh, (s)->ow) * (size_t)(s)->oc + (size_t)k;             \
            body;                                                                                     \
          }                                                                                           \
        }

static void forward(const mptl_conv_shape *s, float *y, const float *x, const float *w) {
  for (size_t i = 0; i < y_numel(s); i++) y[i] = 0;
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++) EACH_PRODUCT(s, n, oh, y[yi] += x[xi] * w[wi])
}

static void backward_data(const mptl_conv_shape *s, float *dx, const float *dy, const float *w) {
  for (size_t i = 0; i < x_numel(s); i++) dx[i] = 0;
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++) EACH_PRODUCT(s, n, oh, dx[xi] += dy[yi] * w[wi])
}

static void backward_weights(const mptl_conv_shape *s, float *dw, const float *x, const float *dy) {
  for (size_t i = 0; i < w_numel(s); i++) dw[i] = 0;
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++) EACH_PRODUCT(s, n, oh, dw[wi] += x[xi] * dy[yi])
}

/* As the libraries want them: the operands' vectors and the workspace are aligned. */
static mptl_status check_alignment(const void *first, const void *second, const void *result, const void *workspace) {
  if ((((uintptr_t)first | (uintptr_t)second | (uintptr_t)result) & 15) != 0)
    return mptl_fail(MPTL_EBACKEND, "operands at %p, %p, %p: they must be 16-byte aligned", first, second, result);
  if (((uintptr_t)workspace & 255) != 0)
    return mptl_fail(MPTL_EBACKEND, "a workspace at %p: it must be 256-byte aligned", workspace);
  return MPTL_OK;
}

mptl_status mptl_cuda_product_run(mptl_cuda_product *p, float *result, const void *first, const void *second, void *workspace) {
  const mptl_conv_shape *s = &p->s;
  bool exact = true;
  MPTL_TRY(check_alignment(first, second, result, workspace));
  mptl_cuda_enter();
  mptl_cuda_address(first);
  mptl_cuda_address(second);
  memset(mptl_cuda_address(workspace), 0xff, WORKSPACE);
  float *a = read_operand(first, p->type, p->pass == MPTL_BACKWARD_DATA ? y_numel(s) : x_numel(s), &exact);
  float *b = read_operand(second, p->type, p->pass == MPTL_BACKWARD_WEIGHTS ? y_numel(s) : w_numel(s), &exact);
  float *to = mptl_cuda_address(result);
  if (a != NULL && b != NULL && p->pass == MPTL_FORWARD) forward(s, to, a, b);
  if (a != NULL && b != NULL && p->pass == MPTL_BACKWARD_DATA) backward_data(s, to, a, b);
  if (a != NULL && b != NULL && p->pass == MPTL_BACKWARD_WEIGHTS) backward_weights(s, to, a, b);
  mptl_status status = a != NULL && b != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory");
  if (status == MPTL_OK && !exact)
    status = mptl_fail(MPTL_EBACKEND, "an operand of TF32 units has more than 11 significant bits");
  free(a);
  free(b);
  mptl_cuda_leave(0);
  return status;
}

/* Matrix products by definition, for tests: each result is a sum in binary32, in a fixed order. */
#include "backend/cuda/products.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/round.h"

struct mptl_cuda_product {
  mptl_cuda_device *device;
  mptl_conv_shape s;
  mptl_pass pass;
  mptl_cuda_pair type;
};

/* Roughly what the libraries have for 8 bits: channels in multiples of 16, and not E5M2 by E5M2. */
static mptl_status check_8_bits(const mptl_conv_shape *s, mptl_cuda_type first,
                                mptl_cuda_type second) {
  if (first == MPTL_CUDA_E5M2 && second == MPTL_CUDA_E5M2)
    return mptl_fail(MPTL_EUNSUPPORTED, "no code for a product of e5m2 and e5m2");
  if (s->ic % 16 != 0 || s->oc % 16 != 0)
    return mptl_fail(MPTL_EUNSUPPORTED,
                     "no code for 8 bits and %d and %d channels, which are not multiples of 16",
                     s->ic, s->oc);
  return MPTL_OK;
}

/* In bf16 the libraries have no backward passes for odd numbers of channels. */
static mptl_status check_bf16(const mptl_conv_shape *s, mptl_pass pass) {
  if (pass != MPTL_FORWARD && s->groups == 1 && (s->ic % 2 != 0 || s->oc % 2 != 0))
    return mptl_fail(MPTL_EUNSUPPORTED, "no code for bf16 and %d and %d channels, %s", s->ic, s->oc,
                     mptl_pass_name(pass));
  return MPTL_OK;
}

static mptl_status create(mptl_cuda_product **product, mptl_cuda_device *device,
                          const mptl_conv_shape *shape, mptl_pass pass, mptl_cuda_pair t) {
  MPTL_TRY(mptl_conv_check(shape));
  MPTL_TRY(mptl_cuda_check_types(device->capability, t.first, t.second));
  if (mptl_cuda_type_size(t.first) == 1) MPTL_TRY(check_8_bits(shape, t.first, t.second));
  *product = malloc(sizeof **product);
  if (*product == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  **product = (mptl_cuda_product){.device = device, .s = *shape, .pass = pass, .type = t};
  return MPTL_OK;
}

/* The last list of announced passes. Other passes are refused, because the libraries could not have
 * prepared them. */
struct mptl_cuda_products {
  size_t count;
  mptl_cuda_announced announced[];
};

void mptl_cuda_products_close(mptl_cuda_device *device) {
  free(device->products);
  device->products = NULL;
}

void mptl_cuda_products_announce(mptl_cuda_device *device, const mptl_cuda_announced *list,
                                 size_t n) {
  mptl_cuda_products_close(device);
  device->products = malloc(sizeof *device->products + n * sizeof *list);
  if (device->products == NULL) return;
  device->products->count = n;
  memcpy(device->products->announced, list, n * sizeof *list);
}

static bool is_announced(const mptl_cuda_device *device, const mptl_conv_shape *s, mptl_pass pass,
                         mptl_cuda_type first, mptl_cuda_type second) {
  for (size_t i = 0; device->products != NULL && i < device->products->count; i++) {
    const mptl_cuda_announced *w = &device->products->announced[i];
    if (!mptl_same_products(&w->shape, s) || w->pass != pass) continue;
    for (int k = 0; k < w->choices.n; k++)
      if (w->choices.pairs[k].first == first && w->choices.pairs[k].second == second) return true;
  }
  return false;
}

mptl_status mptl_cuda_product_conv(mptl_cuda_product **product, mptl_cuda_device *device,
                                   const mptl_conv_shape *shape, mptl_pass pass, mptl_cuda_pair t) {
  if (!is_announced(device, shape, pass, t.first, t.second))
    return mptl_fail(MPTL_EBACKEND, "%s, %s, %s by %s: it was not announced",
                     mptl_conv_name(shape).text, mptl_pass_name(pass), mptl_cuda_type_name(t.first),
                     mptl_cuda_type_name(t.second));
  if (t.first == MPTL_CUDA_BF16) MPTL_TRY(check_bf16(shape, pass));
  return create(product, device, shape, pass, t);
}

mptl_status mptl_cuda_product_linear(mptl_cuda_product **product, mptl_cuda_device *device,
                                     const mptl_linear_shape *s, mptl_pass pass, mptl_cuda_pair t) {
  const mptl_conv_shape shape = mptl_linear_as_conv(s);
  return create(product, device, &shape, pass, t);
}

void mptl_cuda_product_destroy(mptl_cuda_product *product) { free(product); }

/* A run overwrites its workspace, so that tests find callers that give too little. */
enum { WORKSPACE = 1024 };
size_t mptl_cuda_product_workspace_bytes(const mptl_cuda_product *product) {
  (void)product;
  return WORKSPACE;
}

const char *mptl_cuda_product_engine(const mptl_cuda_product *product) {
  (void)product;
  return "loops";
}

const char *mptl_cuda_products_libraries(void) { return "no library"; }

/* ---- Operands ---- */

/* The value of an OCP code by definition, without the engine's decoding: E4M3 has one NaN and no
 * infinity; E5M2 has NaNs and infinities, like the upper half of binary16. */
static float ocp_value(uint8_t code, mptl_cuda_type type) {
  int m = type == MPTL_CUDA_E4M3 ? 3 : 2, bias = type == MPTL_CUDA_E4M3 ? 7 : 15;
  int exponent = (code & 0x7f) >> m, fraction = code & ((1 << m) - 1);
  float sign = code & 0x80 ? -1.0f : 1.0f;
  if (type == MPTL_CUDA_E4M3 && (code & 0x7f) == 0x7f) return NAN;
  if (type == MPTL_CUDA_E5M2 && exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * ldexpf((float)fraction, 1 - bias - m);
  return sign * ldexpf((float)(fraction + (1 << m)), exponent - bias - m);
}

static float value_at(const void *p, mptl_cuda_type type, size_t i) {
  if (mptl_cuda_type_size(type) == 1) return ocp_value(((const uint8_t *)p)[i], type);
  return type == MPTL_CUDA_BF16 ? mptl_bits_f32((uint32_t)((const uint16_t *)p)[i] << 16)
                                : ((const float *)p)[i];
}

/* The nearest number of TF32, which has 11 significant bits; in a tie, the even one. */
static float tf32_value(float x) {
  uint32_t bits = mptl_f32_bits(x);
  if (isfinite(x)) bits = (bits + 0xfff + (bits >> 13 & 1)) & ~UINT32_C(0x1fff);
  return mptl_bits_f32(bits);
}

/* Reads n values into binary32, as units multiply them. *exact becomes false if TF32 units would
 * drop bits. The caller frees the values. */
static float *read_operand(const void *p, mptl_cuda_type type, size_t n, bool *exact) {
  float *values = malloc(n * sizeof *values);
  for (size_t i = 0; values != NULL && i < n; i++) {
    float x = value_at(p, type, i);
    values[i] = type == MPTL_CUDA_TF32 ? tf32_value(x) : x;
    if (mptl_f32_bits(values[i]) != mptl_f32_bits(x)) *exact = false;
  }
  return values;
}

/* ---- Sums ---- */

static size_t pixel(int n, int h, int w, int height, int width) {
  return ((size_t)n * (size_t)height + (size_t)h) * (size_t)width + (size_t)w;
}

/* Runs body with the indices xi, wi and yi of every product of a row of an image's output. */
#define EACH_PRODUCT(s, n, oh, body)                                                        \
  for (int ow = 0; ow < (s)->ow; ow++)                                                      \
    for (int k = 0; k < (s)->oc; k++)                                                       \
      for (int r = 0; r < (s)->kh; r++)                                                     \
        for (int q = 0; q < (s)->kw; q++) {                                                 \
          int ih = (oh) * (s)->sh + r * (s)->dh - (s)->ph,                                  \
              iw = ow * (s)->sw + q * (s)->dw - (s)->pw;                                    \
          if (ih < 0 || ih >= (s)->ih || iw < 0 || iw >= (s)->iw) continue;                 \
          int count = (s)->ic / (s)->groups, first = k / ((s)->oc / (s)->groups) * count;   \
          for (int c = 0; c < count; c++) {                                                 \
            size_t xi =                                                                     \
                pixel(n, ih, iw, (s)->ih, (s)->iw) * (size_t)(s)->ic + (size_t)(first + c); \
            size_t wi = pixel(k, r, q, (s)->kh, (s)->kw) * (size_t)count + (size_t)c;       \
            size_t yi = pixel(n, oh, ow, (s)->oh, (s)->ow) * (size_t)(s)->oc + (size_t)k;   \
            body;                                                                           \
          }                                                                                 \
        }

static void forward(const mptl_conv_shape *s, float *y, const float *x, const float *w) {
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++) EACH_PRODUCT(s, n, oh, y[yi] += x[xi] * w[wi])
}

static void backward_data(const mptl_conv_shape *s, float *dx, const float *dy, const float *w) {
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++) EACH_PRODUCT(s, n, oh, dx[xi] += dy[yi] * w[wi])
}

static void backward_weights(const mptl_conv_shape *s, float *dw, const float *x, const float *dy) {
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++) EACH_PRODUCT(s, n, oh, dw[wi] += x[xi] * dy[yi])
}

/* The libraries need this alignment. */
static mptl_status check_alignment(const void *first, const void *second, const void *result,
                                   const void *workspace) {
  if ((((uintptr_t)first | (uintptr_t)second | (uintptr_t)result) & 15) != 0)
    return mptl_fail(MPTL_EBACKEND, "operands at %p, %p, %p: they must be 16-byte aligned", first,
                     second, result);
  if (((uintptr_t)workspace & 255) != 0)
    return mptl_fail(MPTL_EBACKEND, "a workspace at %p: it must be 256-byte aligned", workspace);
  return MPTL_OK;
}

mptl_status mptl_cuda_product_run(mptl_cuda_product *p, float *result, const void *first,
                                  const void *second, void *workspace) {
  const mptl_conv_shape *s = &p->s;
  const mptl_pass_arrays arrays = mptl_arrays_of(p->pass);
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(s);
  bool exact = true;
  MPTL_TRY(check_alignment(first, second, result, workspace));
  mptl_cuda_enter(p->device);
  mptl_cuda_address(p->device, first);
  mptl_cuda_address(p->device, second);
  memset(mptl_cuda_address(p->device, workspace), 0xff, WORKSPACE);
  float *a = read_operand(first, p->type.first, sizes.n[arrays.first], &exact);
  float *b = read_operand(second, p->type.second, sizes.n[arrays.second], &exact);
  float *to = mptl_cuda_address(p->device, result);
  memset(to, 0, sizes.n[arrays.result] * sizeof *to);
  if (a != NULL && b != NULL && p->pass == MPTL_FORWARD) forward(s, to, a, b);
  if (a != NULL && b != NULL && p->pass == MPTL_BACKWARD_DATA) backward_data(s, to, a, b);
  if (a != NULL && b != NULL && p->pass == MPTL_BACKWARD_WEIGHTS) backward_weights(s, to, a, b);
  mptl_status status = a != NULL && b != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory");
  if (status == MPTL_OK && !exact && !p->type.inexact)
    status = mptl_fail(MPTL_EBACKEND, "an operand of TF32 units has more than 11 significant bits");
  free(a);
  free(b);
  mptl_cuda_leave(p->device);
  return status;
}

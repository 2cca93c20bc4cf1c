/* The shapes of GEMM operators, in the form that the libraries of all backends take, and their
 * three passes. A pass multiplies two of three arrays; its sums of products are the third. */
#ifndef MPTL_BACKEND_SHAPES_H
#define MPTL_BACKEND_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef enum mptl_pass { MPTL_FORWARD, MPTL_BACKWARD_DATA, MPTL_BACKWARD_WEIGHTS } mptl_pass;
enum { MPTL_PASSES = 3 };

/* The name of a pass: "forward", "backward data", "backward weights". */
MPTL_API const char *mptl_pass_name(mptl_pass pass);

/* The arrays of a product: input, weights, output, or their gradients. */
typedef enum mptl_product_array { MPTL_X, MPTL_W, MPTL_Y } mptl_product_array;
enum { MPTL_PRODUCT_ARRAYS = 3 };

/* The operands of a pass, in the order of the libraries' functions, and its result:
 *   forward            first x, second weights    result y
 *   backward data      first dy, second weights   result dx
 *   backward weights   first x, second dy         result dweights */
typedef struct mptl_pass_arrays {
  mptl_product_array first, second, result;
} mptl_pass_arrays;
MPTL_API mptl_pass_arrays mptl_arrays_of(mptl_pass pass);

/* A convolution, with sizes in elements: n images; ic, ih, iw of the input; oc, oh, ow of the
 * output; kernel size kh, kw; stride sh, sw; padding ph, pw; dilation dh, dw; channel groups.
 * Padding is on both sides, and dilation 1 means none, as in PyTorch. oh must be (ih + 2 ph - dh
 * (kh - 1) - 1) / sh + 1, rounded down; ow likewise. */
typedef struct mptl_conv_shape {
  int n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups;
  bool bias;
} mptl_conv_shape;

/* A linear layer: input [n][h][w][c], where h = w = 1 unless it is a flattened image; output
 * [n][out]. */
typedef struct mptl_linear_shape {
  int n, c, h, w, out;
  bool bias;
} mptl_linear_shape;

/* A shape as text: "conv2d 128x3x32x32 -> 64x32x32, kernel 3x3, ...". */
typedef struct mptl_shape_name {
  char text[192];
} mptl_shape_name;
MPTL_API mptl_shape_name mptl_conv_name(const mptl_conv_shape *shape);
MPTL_API mptl_shape_name mptl_linear_name(const mptl_linear_shape *shape);

/* Checks a shape. Fails with MPTL_EINVAL if no operator can have it; the message begins with the
 * shape. */
MPTL_API mptl_status mptl_conv_check(const mptl_conv_shape *shape);
MPTL_API mptl_status mptl_linear_check(const mptl_linear_shape *shape);

/* Whether two convolutions have the same products: all sizes are equal, the bias may differ. */
MPTL_API bool mptl_same_products(const mptl_conv_shape *a, const mptl_conv_shape *b);

/* A linear layer as a convolution of images of one pixel, with the same order in memory. */
MPTL_API mptl_conv_shape mptl_linear_as_conv(const mptl_linear_shape *shape);

/* The number of elements of x [n][ih][iw][ic], the weights [oc][kh][kw][ic / groups] and y
 * [n][oh][ow][oc]. */
typedef struct mptl_conv_sizes {
  size_t n[MPTL_PRODUCT_ARRAYS];
} mptl_conv_sizes;
MPTL_API mptl_conv_sizes mptl_conv_sizes_of(const mptl_conv_shape *shape);

/* How many products each sum of a pass has. At the edges of images it has fewer. */
MPTL_API uint64_t mptl_conv_terms(const mptl_conv_shape *shape, mptl_pass pass);

#endif

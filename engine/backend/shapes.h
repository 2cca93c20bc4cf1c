/* Shapes of matrix products, as the libraries of every backend take them, and the three passes of
 * each. A pass multiplies two of three arrays and adds the products up in the third one. */
#ifndef MPTL_BACKEND_SHAPES_H
#define MPTL_BACKEND_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef enum mptl_pass { MPTL_FORWARD, MPTL_BACKWARD_DATA, MPTL_BACKWARD_WEIGHTS } mptl_pass;
enum { MPTL_PASSES = 3 };

/* "forward", "backward data", "backward weights" */
MPTL_API const char *mptl_pass_name(mptl_pass pass);

/* The arrays of a product: the input, the weights, the output, or their gradients. */
typedef enum mptl_product_array { MPTL_X, MPTL_W, MPTL_Y } mptl_product_array;
enum { MPTL_PRODUCT_ARRAYS = 3 };

/* The operands of a pass, in the order in which every library's functions take them, and its result:
 *   forward            first x, second weights    result y
 *   backward data      first dy, second weights   result dx
 *   backward weights   first x, second dy         result dweights */
typedef struct mptl_pass_arrays {
  mptl_product_array first, second, result;
} mptl_pass_arrays;
MPTL_API mptl_pass_arrays mptl_arrays_of(mptl_pass pass);

/* Sizes in elements; padding is on both sides, and a dilation of 1 is none, as in PyTorch. oh and ow
 * must be (ih + 2 ph - dh (kh - 1) - 1) / sh + 1, rounded down, and the same for the width. */
typedef struct mptl_conv_shape {
  int n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups;
  bool bias;
} mptl_conv_shape;

/* Input [n][h][w][c] (h = w = 1 for a plain matrix), output [n][out]. */
typedef struct mptl_linear_shape {
  int n, c, h, w, out;
  bool bias;
} mptl_linear_shape;

/* A shape in words, "conv2d 128x3x32x32 -> 64x32x32, kernel 3x3, ..." */
typedef struct mptl_shape_name {
  char text[192];
} mptl_shape_name;
MPTL_API mptl_shape_name mptl_conv_name(const mptl_conv_shape *shape);
MPTL_API mptl_shape_name mptl_linear_name(const mptl_linear_shape *shape);

/* MPTL_EINVAL, with a message that begins with the name, unless an operator can have this shape. */
MPTL_API mptl_status mptl_conv_check(const mptl_conv_shape *shape);
MPTL_API mptl_status mptl_linear_check(const mptl_linear_shape *shape);

/* Whether two convolutions multiply the same: equal in everything except the bias. */
MPTL_API bool mptl_same_products(const mptl_conv_shape *a, const mptl_conv_shape *b);

/* The convolution of one pixel that multiplies the same numbers in the same order in memory. */
MPTL_API mptl_conv_shape mptl_linear_as_conv(const mptl_linear_shape *shape);

/* Elements of x [n][ih][iw][ic], the weights [oc][kh][kw][ic / groups] and y [n][oh][ow][oc]. */
typedef struct mptl_conv_sizes {
  size_t n[MPTL_PRODUCT_ARRAYS];
} mptl_conv_sizes;
MPTL_API mptl_conv_sizes mptl_conv_sizes_of(const mptl_conv_shape *shape);

/* How many products each sum of a pass has; at an image's edges there are fewer. */
MPTL_API uint64_t mptl_conv_terms(const mptl_conv_shape *shape, mptl_pass pass);

#endif

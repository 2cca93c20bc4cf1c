/* Shapes of matrix products, as the libraries of every backend get them, and the three passes of each. */
#ifndef MPTL_BACKEND_SHAPES_H
#define MPTL_BACKEND_SHAPES_H

#include <stdbool.h>

#include "mptl/status.h"

typedef enum mptl_pass { MPTL_FORWARD, MPTL_BACKWARD_DATA, MPTL_BACKWARD_WEIGHTS } mptl_pass;
enum { MPTL_PASSES = 3 };

/* "forward", "backward data", "backward weights" */
MPTL_API const char *mptl_pass_name(mptl_pass pass);

/* Sizes in elements; padding is on both sides, a dilation of 1 is none, as in PyTorch. oh and ow must be what follows:
 * (ih + 2 ph - dh (kh - 1) - 1) / sh + 1, rounded down. */
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

/* MPTL_EINVAL, with a message that begins with the name, for a shape that is no operator's. */
MPTL_API mptl_status mptl_conv_check(const mptl_conv_shape *shape);
MPTL_API mptl_status mptl_linear_check(const mptl_linear_shape *shape);

#endif

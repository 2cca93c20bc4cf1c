/* The passes of convolutions, written out in the order of their definition: which product of which two elements goes where. */
#ifndef MPTL_SPEC_CUDA_SUMS_H
#define MPTL_SPEC_CUDA_SUMS_H

#include <stddef.h>

#include "backend/shapes.h"

/* The arrays of a pass: x, weights, y, or their gradients. */
enum { X, W, Y };
typedef struct sizes {
  size_t n[3]; /* elements */
} sizes;

/* A product of two of the three is added to the third: by pass, which is which. */
static const int firsts[MPTL_PASSES] = {X, Y, X}, seconds[MPTL_PASSES] = {W, W, Y}, results[MPTL_PASSES] = {Y, X, W};

static inline sizes conv_sizes(const mptl_conv_shape *s) {
  return (sizes){{(size_t)s->n * s->ih * s->iw * s->ic, (size_t)s->oc * s->kh * s->kw * (s->ic / s->groups),
                  (size_t)s->n * s->oh * s->ow * s->oc}};
}

static inline void add_product(double *const a[3], size_t x, size_t w, size_t y, mptl_pass pass) {
  const size_t i[3] = {x, w, y};
  int r = results[pass], f = firsts[pass], s = seconds[pass];
  a[r][i[r]] += a[f][i[f]] * a[s][i[s]];
}

/* Adds all products of a pass to its result. */
static inline void conv_reference(const mptl_conv_shape *s, mptl_pass pass, double *const a[3]) {
  int c = s->ic / s->groups, k = s->oc / s->groups;
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++)
      for (int ow = 0; ow < s->ow; ow++)
        for (int o = 0; o < s->oc; o++)
          for (int kh = 0; kh < s->kh; kh++)
            for (int kw = 0; kw < s->kw; kw++) {
              int ih = oh * s->sh - s->ph + kh * s->dh, iw = ow * s->sw - s->pw + kw * s->dw;
              if (ih < 0 || ih >= s->ih || iw < 0 || iw >= s->iw) continue;
              for (int i = 0; i < c; i++)
                add_product(a, (((size_t)n * s->ih + ih) * s->iw + iw) * s->ic + o / k * c + i,
                            (((size_t)o * s->kh + kh) * s->kw + kw) * c + i, (((size_t)n * s->oh + oh) * s->ow + ow) * s->oc + o,
                            pass);
            }
}

#endif

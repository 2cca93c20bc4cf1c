/* The passes of convolutions by definition: which two elements are multiplied, and to which sum the
 * product is added. */
#ifndef MPTL_SPEC_CUDA_SUMS_H
#define MPTL_SPEC_CUDA_SUMS_H

#include <stddef.h>

#include "backend/shapes.h"

static inline void add_product(double *const a[3], size_t x, size_t w, size_t y, mptl_pass pass) {
  const size_t i[3] = {x, w, y};
  const mptl_pass_arrays p = mptl_arrays_of(pass);
  a[p.result][i[p.result]] += a[p.first][i[p.first]] * a[p.second][i[p.second]];
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
                            (((size_t)o * s->kh + kh) * s->kw + kw) * c + i,
                            (((size_t)n * s->oh + oh) * s->ow + ow) * s->oc + o, pass);
            }
}

#endif

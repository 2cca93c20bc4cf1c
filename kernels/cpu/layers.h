/* Element-wise and reducing kernels that operators call. isa/layers.c is compiled once per
 * instruction set; all give the same bits.
 *
 * Arrays are binary32 unless their type says otherwise; results must not overlap operands.
 * [rows][c] is a part of an NHWC value: rows pixels of c channels each, without gaps.
 */
#ifndef MPTL_KERNELS_CPU_LAYERS_H
#define MPTL_KERNELS_CPU_LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mptl_layer_kernels {
  void (*add)(float *y, const float *a, const float *b, size_t n);
  void (*mul)(float *y, const float *a, const float *b, size_t n);
  void (*accumulate)(float *y, const float *x, size_t n);         /* y += x */
  void (*to_bf16)(uint16_t *y, const float *x, size_t n);         /* bf16 must hold x exactly */
  void (*axpy)(float *y, const float *x, float factor, size_t n); /* y += x * factor */
  void (*interleave)(float *y, const float *a, const float *b,
                     size_t n); /* y = a[0], b[0], a[1], b[1], ... */
  void (*deinterleave)(float *a, float *b, const float *x,
                       size_t n); /* the inverse; a and b have n elements each */

  /* Where x is larger than best, or NaN: best = x, index = at. best and index are [rows][c]; rows
   * of x are `step` elements apart. */
  void (*larger)(float *best, int32_t *index, const float *x, size_t step, int32_t at, size_t rows,
                 size_t c);
  /* y += x where index == at. x and index are [rows][c]; rows of y are `step` elements apart. */
  void (*add_where)(float *y, size_t step, const float *x, const int32_t *index, int32_t at,
                    size_t rows, size_t c);

  /* The pattern of the largest magnitude. Infinity counts as larger than every number, NaN as
   * larger than infinity. */
  uint32_t (*largest)(const float *x, size_t n);
  bool (*all_finite)(const float *x, size_t n);
} mptl_layer_kernels;

/* The kernels of the instruction set in use. */
const mptl_layer_kernels *mptl_layers(void);

#endif

/* The convolutions and linear operators that bench/conv.c and bench/cuda.c measure: those of
 * ResNet-18 on CIFAR at widths 1 and 0.25, both ends included, the first one's images with more
 * channels too, and the depthwise and odd-channel ones of the mobile networks. */
#ifndef MPTL_BENCH_CONV_ROWS_H
#define MPTL_BENCH_CONV_ROWS_H

#include "backend/shapes.h"

typedef struct bench_row {
  int ic, h, oc, k, stride, groups;
  bool linear, stem; /* a stem's input is the images: it has no gradient */
} bench_row;

static const bench_row bench_rows[] = {
    {3, 32, 64, 3, 1, 1, false, true},     {64, 32, 64, 3, 1, 1, false, false},
    {64, 32, 128, 3, 2, 1, false, false},  {64, 32, 128, 1, 2, 1, false, false},
    {128, 16, 128, 3, 1, 1, false, false}, {256, 8, 256, 3, 1, 1, false, false},
    {512, 4, 512, 3, 1, 1, false, false},  {512, 1, 10, 1, 1, 1, true, false},
    {3, 32, 16, 3, 1, 1, false, true},     {16, 32, 16, 3, 1, 1, false, false},
    {16, 32, 32, 3, 2, 1, false, false},   {16, 32, 32, 1, 2, 1, false, false},
    {32, 16, 32, 3, 1, 1, false, false},   {64, 8, 64, 3, 1, 1, false, false},
    {128, 4, 128, 3, 1, 1, false, false},  {24, 32, 24, 1, 1, 1, false, false},
    {12, 32, 12, 3, 1, 1, false, false},   {28, 32, 28, 1, 1, 1, false, false},
    {28, 32, 28, 3, 1, 28, false, false},  {96, 32, 96, 3, 1, 96, false, false},
    {58, 16, 58, 3, 1, 58, false, false},  {116, 8, 116, 3, 2, 116, false, false},
    {58, 16, 58, 1, 1, 1, false, false},   {464, 4, 1024, 1, 1, 1, false, false},
    {4, 32, 64, 3, 1, 1, false, true},     {6, 32, 64, 3, 1, 1, false, true},
    {8, 32, 64, 3, 1, 1, false, true},
};
enum { BENCH_ROWS = sizeof bench_rows / sizeof *bench_rows };

static inline mptl_conv_shape bench_shape(const bench_row *row, int n) {
  int pad = row->k / 2, out = (row->h + 2 * pad - row->k) / row->stride + 1;
  return (mptl_conv_shape){n,   row->ic, row->h, row->h,      row->oc,     out,
                           out, row->k,  row->k, row->stride, row->stride, pad,
                           pad, 1,       1,      row->groups, row->linear};
}

static inline double bench_flops(const mptl_conv_shape *s) {
  return 2.0 * s->n * s->oh * s->ow * s->oc * (s->ic / s->groups) * s->kh * s->kw;
}

#endif

#include "backend/cpu/conv_plan.h"

#include <stdlib.h>
#include <unistd.h>

enum { BLOCK_PIXELS = 256 }; /* of a block in backward by weights, at least */

static int ceil_div(int a, int b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
static int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

/* The taps of a phase along one axis, and where in the operand the first pixel's are. */
typedef struct axis {
  int n, *k, *at;
} axis;

static bool make_axis(axis *a, int window) {
  *a = (axis){.k = malloc((size_t)window * sizeof *a->k),
              .at = malloc((size_t)window * sizeof *a->at)};
  return a->k != NULL && a->at != NULL;
}

static void free_axis(axis *a) {
  free(a->k);
  free(a->at);
}

static void forward_taps(axis *a, int window, int dilation) {
  for (a->n = 0; a->n < window; a->n++) a->k[a->n] = a->n, a->at[a->n] = a->n * dilation;
}

/* Backward by data: result pixel i reads tap k, if (i + padding - k dilation) / stride is whole, at
 * that place; border: of the operand. The last tap comes first, so that places ascend. */
static void backward_taps(axis *a, int window, int dilation, int stride, int padding, int border,
                          int i) {
  a->n = 0;
  for (int k = window - 1; k >= 0; k--) {
    int at = i + padding - k * dilation;
    if (at % stride != 0) continue;
    a->k[a->n] = k;
    a->at[a->n++] = border + at / stride;
  }
}

/* The spans of taps ky x kx, whose places in the operand are rows y[] and columns x[] of the first
 * pixel. Taps side by side in memory are one span. */
static mptl_status make_spans(mptl_conv *v, mptl_conv_phase *p, const axis *y, const axis *x) {
  bool merges = v->s.groups == 1;
  for (int j = 1; j < x->n; j++) merges = merges && x->at[j] == x->at[j - 1] + 1;
  p->taps = y->n * x->n;
  p->spans = (size_t)y->n * (merges ? x->n > 0 : (size_t)x->n);
  p->length = (size_t)v->group_in * (merges ? (size_t)x->n : 1);
  p->span = malloc((p->spans + 1) * sizeof *p->span);
  p->tap = malloc(((size_t)p->taps + 1) * sizeof *p->tap);
  if (p->span == NULL || p->tap == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  size_t span = 0;
  for (int i = 0; i < y->n; i++)
    for (int j = 0; j < x->n; j++) {
      p->tap[i * x->n + j] = y->k[i] * v->s.kw + x->k[j];
      if (j == 0 || !merges) p->span[span++] = mptl_conv_place(v, y->at[i], x->at[j]);
    }
  return MPTL_OK;
}

static void count_packed(mptl_conv *v) {
  for (int i = 0; i < v->n_phases; i++) {
    v->phases[i].packed = v->packed_floats;
    v->packed_floats += (size_t)v->s.groups * (size_t)mptl_conv_vectors(v) * v->kernels->lanes *
                        (size_t)v->phases[i].taps * (size_t)v->group_in;
  }
}

static mptl_status plan_phases(mptl_conv *v, axis *y, axis *x) {
  const mptl_conv_shape *s = &v->s;
  const bool data = v->pass == MPTL_BACKWARD_DATA;
  v->phases = calloc(data ? (size_t)s->sh * (size_t)s->sw : 1, sizeof *v->phases);
  if (v->phases == NULL || !make_axis(y, s->kh) || !make_axis(x, s->kw))
    return mptl_fail(MPTL_ENOMEM, "no memory");
  if (!data) {
    mptl_conv_phase *p = &v->phases[v->n_phases++];
    *p = (mptl_conv_phase){.rows = s->oh, .columns = s->ow};
    forward_taps(y, s->kh, s->dh);
    forward_taps(x, s->kw, s->dw);
    return make_spans(v, p, y, x);
  }
  for (int y0 = 0; y0 < s->sh && y0 < s->ih; y0++)
    for (int x0 = 0; x0 < s->sw && x0 < s->iw; x0++) {
      mptl_conv_phase *p = &v->phases[v->n_phases++];
      *p = (mptl_conv_phase){.y0 = y0,
                             .x0 = x0,
                             .rows = (s->ih - y0 + s->sh - 1) / s->sh,
                             .columns = (s->iw - x0 + s->sw - 1) / s->sw};
      backward_taps(y, s->kh, s->dh, s->sh, s->ph, v->top, y0);
      backward_taps(x, s->kw, s->dw, s->sw, s->pw, v->left, x0);
      MPTL_TRY(make_spans(v, p, y, x));
    }
  return MPTL_OK;
}

static mptl_status make_phases(mptl_conv *v) {
  axis y = {0}, x = {0};
  mptl_status status = plan_phases(v, &y, &x);
  free_axis(&y);
  free_axis(&x);
  if (status == MPTL_OK && v->pass != MPTL_BACKWARD_WEIGHTS) count_packed(v);
  return status;
}

/* Two thirds of the first-level cache. */
static size_t piece_floats(void) {
  long bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  return (bytes > 0 ? (size_t)bytes : 32768) * 2 / 3 / sizeof(float);
}

/* Backward by weights: blocks of output rows, and where these begin in the operand. */
static mptl_status make_blocks(mptl_conv *v) {
  const int pixels = v->s.oh * v->s.ow;
  v->images = (BLOCK_PIXELS + pixels - 1) / pixels;
  v->block_rows = v->images > 1 ? v->images * v->s.oh : (BLOCK_PIXELS + v->s.ow - 1) / v->s.ow;
  if (v->images > v->s.n) v->images = v->s.n;
  v->lines = malloc((size_t)v->images * (size_t)v->out_h * sizeof *v->lines);
  if (v->lines == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  for (int i = 0; i < v->images * v->out_h; i++)
    v->lines[i] = (size_t)(i / v->out_h) * mptl_conv_operand_floats(v) +
                  mptl_conv_place(v, i % v->out_h * v->in_stride_y, 0);
  return MPTL_OK;
}

mptl_status mptl_conv_plan(mptl_conv *v) {
  const mptl_conv_shape *s = &v->s;
  v->piece_floats = piece_floats();
  v->in_stride_y = v->in_stride_x = v->out_stride_y = v->out_stride_x = 1;
  if (v->pass == MPTL_BACKWARD_DATA) {
    /* Windows reach rows of dy from ceil((ph - (kh - 1) dh) / sh) to floor((ih - 1 + ph) / sh). */
    int before_y = -ceil_div(s->ph - (s->kh - 1) * s->dh, s->sh),
        before_x = -ceil_div(s->pw - (s->kw - 1) * s->dw, s->sw);
    int after_y = floor_div(s->ih - 1 + s->ph, s->sh) - (s->oh - 1),
        after_x = floor_div(s->iw - 1 + s->pw, s->sw) - (s->ow - 1);
    v->top = before_y > 0 ? before_y : 0;
    v->left = before_x > 0 ? before_x : 0;
    v->in_h = s->oh, v->in_w = s->ow, v->c = s->oc;
    v->h = v->top + s->oh + (after_y > 0 ? after_y : 0);
    v->w = v->left + s->ow + (after_x > 0 ? after_x : 0);
    v->group_in = s->oc / s->groups, v->columns = s->ic / s->groups;
    v->out_stride_y = s->sh, v->out_stride_x = s->sw;
    v->out_h = s->ih, v->out_w = s->iw, v->out_c = s->ic;
    v->copies = v->h != s->oh || v->w != s->ow;
    return make_phases(v);
  }
  v->top = s->ph, v->left = s->pw;
  v->in_h = s->ih, v->in_w = s->iw, v->c = s->ic;
  v->h = s->ih + 2 * s->ph, v->w = s->iw + 2 * s->pw;
  v->group_in = s->ic / s->groups, v->columns = s->oc / s->groups;
  v->in_stride_y = s->sh, v->in_stride_x = s->sw;
  v->out_h = s->oh, v->out_w = s->ow, v->out_c = s->oc;
  v->copies = s->ph > 0 || s->pw > 0;
  if (v->pass == MPTL_BACKWARD_WEIGHTS) MPTL_TRY(make_blocks(v));
  return make_phases(v); /* backward by weights reads the windows of forward */
}

void mptl_conv_release(mptl_conv *v) {
  for (int i = 0; i < v->n_phases; i++) {
    free(v->phases[i].span);
    free(v->phases[i].tap);
  }
  free(v->phases);
  free(v->lines);
}

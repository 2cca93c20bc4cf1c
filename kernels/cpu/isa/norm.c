/* Kernels of norm.h. Sums run over rows, in order, and vectors over channels; with vectors, sums
 * stay in registers for all rows of two vectors of channels. */
#include "kernels/cpu/ahead.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vec_half.h"

#if MPTL_VEC

#define INLINE static inline __attribute__((always_inline))

/* The channels of one pass over the rows: n from `at` on, in one or two vectors. whole: they fill
 * both. Where this is inlined, all but `at` and `n` are constants. */
typedef struct span {
  size_t at, n;
  int vectors;
  bool whole;
} span;

/* Calls pass(arguments, c, span) for spans of all c channels. */
#define FOR_SPANS(pass, c, ...)                                                               \
  do {                                                                                        \
    size_t at = 0;                                                                            \
    for (; at + 2 * VN <= c; at += 2 * VN) pass(__VA_ARGS__, c, (span){at, 2 * VN, 2, true}); \
    if (at + VN < c)                                                                          \
      pass(__VA_ARGS__, c, (span){at, c - at, 2, false});                                     \
    else if (at < c)                                                                          \
      pass(__VA_ARGS__, c, (span){at, c - at, 1, false});                                     \
  } while (0)

/* How many channels of vector k a span has. */
INLINE size_t lanes(span s, int k) {
  return s.n < (size_t)(k + 1) * VN ? s.n - (size_t)k * VN : VN;
}

INLINE void load(vu v[2], const float *p, span s) {
  for (int k = 0; k < s.vectors; k++)
    v[k] = s.whole ? v_load(p + k * VN) : v_load_first(p + k * VN, lanes(s, k));
}

INLINE void store(float *p, const vu v[2], span s) {
  for (int k = 0; k < s.vectors; k++) {
    if (s.whole)
      v_store(p + k * VN, v[k]);
    else
      v_store_first(p + k * VN, v[k], lanes(s, k));
  }
}

/* Reads a span of the pixel that begins at element i. half: NULL for binary32; else the values are
 * still to be scaled. */
INLINE void read(vu v[2], const void *data, size_t i, const vec_half *half, span s) {
  if (half == NULL) {
    const float *values = (const float *)data + i + s.at;
    for (int k = 0; k < s.vectors; k++) mptl_fetch_ahead(values + k * VN, sizeof *values);
    load(v, values, s);
    return;
  }
  const uint8_t *codes = (const uint8_t *)data + i + s.at;
  mptl_fetch_ahead(codes, sizeof *codes);
  vec_half_convert(v, s.whole ? v_load8_16(codes) : v_load8_16_first(codes, s.n), half);
}

/* What `read` returned, scaled; and minus b, in one operation, whose product is exact. */
INLINE vu scaled(vu v, const vec_half *half) { return half == NULL ? v : v_fmul(v, half->scale); }
INLINE vu minus(vu v, vu b, const vec_half *half) {
  return half == NULL ? v_fsub(v, b) : v_fmsub(v, half->scale, b);
}

INLINE void moments_of(float *sum, float *sum2, const void *x, const vec_half *half,
                       const float *centre, size_t rows, size_t c, span s) {
  vu a[2], b[2], middle[2], v[2];
  load(a, sum + s.at, s);
  load(b, sum2 + s.at, s);
  load(middle, centre + s.at, s);
  for (size_t i = 0; i < rows * c; i += c) {
    read(v, x, i, half, s);
    for (int k = 0; k < s.vectors; k++) {
      const vu d = minus(v[k], middle[k], half);
      a[k] = v_fadd(a[k], d);
      b[k] = v_fadd(b[k], v_fmul(d, d));
    }
  }
  store(sum + s.at, a, s);
  store(sum2 + s.at, b, s);
}

INLINE void normalize_of(float *y, const void *x, const vec_half *half, const float *factor,
                         const float *term, size_t rows, size_t c, span s) {
  vu f[2], t[2], v[2];
  load(f, factor + s.at, s);
  load(t, term + s.at, s);
  for (size_t i = 0; i < rows * c; i += c) {
    read(v, x, i, half, s);
    for (int k = 0; k < s.vectors; k++) v[k] = v_fadd(v_fmul(scaled(v[k], half), f[k]), t[k]);
    store(y + i + s.at, v, s);
  }
}

/* Two formats in registers, those of dy and x. NULL: binary32. */
typedef struct halves {
  const vec_half *dy, *x;
} halves;

INLINE void backward_sums_of(float *sum_dy, float *sum_dyx, const void *dy, const void *x, halves h,
                             const float *mean, size_t rows, size_t c, span s) {
  vu a[2], b[2], m[2], g[2], v[2];
  load(a, sum_dy + s.at, s);
  load(b, sum_dyx + s.at, s);
  load(m, mean + s.at, s);
  for (size_t i = 0; i < rows * c; i += c) {
    read(g, dy, i, h.dy, s);
    read(v, x, i, h.x, s);
    for (int k = 0; k < s.vectors; k++) {
      const vu gradient = scaled(g[k], h.dy);
      a[k] = v_fadd(a[k], gradient);
      b[k] = v_fadd(b[k], v_fmul(gradient, minus(v[k], m[k], h.x)));
    }
  }
  store(sum_dy + s.at, a, s);
  store(sum_dyx + s.at, b, s);
}

/* The vectors by channel of normalize_backward. */
typedef struct slopes {
  const float *mean, *a, *b, *factor;
} slopes;

INLINE void normalize_backward_of(float *dx, const void *dy, const void *x, halves h, slopes by,
                                  size_t rows, size_t c, span s) {
  vu m[2], a[2], b[2], f[2], g[2], v[2];
  load(m, by.mean + s.at, s);
  load(a, by.a + s.at, s);
  load(b, by.b + s.at, s);
  load(f, by.factor + s.at, s);
  for (size_t i = 0; i < rows * c; i += c) {
    read(g, dy, i, h.dy, s);
    read(v, x, i, h.x, s);
    for (int k = 0; k < s.vectors; k++) {
      const vu slope = v_fmul(minus(v[k], m[k], h.x), b[k]);
      v[k] = v_fmul(v_fsub(minus(g[k], a[k], h.dy), slope), f[k]);
    }
    store(dx + i + s.at, v, s);
  }
}

static bool reads(const void *codes, size_t n, const mptl_rounder *r) {
  if (!vec_half_decodes(r)) return false;
  const uint32_t limit = vec_half_limit(r);
  return limit >= r->code_sign || MPTL_CPU(codes).largest(codes, n, r) < limit;
}

static void moments(float *sum, float *sum2, mptl_pixels x, const float *centre, size_t rows,
                    size_t c) {
  if (x.rounder == NULL) {
    FOR_SPANS(moments_of, c, sum, sum2, x.data, NULL, centre, rows);
  } else {
    const vec_half half = vec_half_for(x.rounder);
    FOR_SPANS(moments_of, c, sum, sum2, x.data, &half, centre, rows);
  }
}

static void normalize(float *y, mptl_pixels x, const float *factor, const float *term, size_t rows,
                      size_t c) {
  if (x.rounder == NULL) {
    FOR_SPANS(normalize_of, c, y, x.data, NULL, factor, term, rows);
  } else {
    const vec_half half = vec_half_for(x.rounder);
    FOR_SPANS(normalize_of, c, y, x.data, &half, factor, term, rows);
  }
}

static void backward_sums(float *sum_dy, float *sum_dyx, mptl_pixels dy, mptl_pixels x,
                          const float *mean, size_t rows, size_t c) {
  if (x.rounder == NULL) {
    const halves none = {NULL, NULL};
    FOR_SPANS(backward_sums_of, c, sum_dy, sum_dyx, dy.data, x.data, none, mean, rows);
  } else {
    const vec_half of_dy = vec_half_for(dy.rounder), of_x = vec_half_for(x.rounder);
    const halves both = {&of_dy, &of_x};
    FOR_SPANS(backward_sums_of, c, sum_dy, sum_dyx, dy.data, x.data, both, mean, rows);
  }
}

static void normalize_backward(float *dx, mptl_pixels dy, mptl_pixels x, const float *mean,
                               const float *a, const float *b, const float *factor, size_t rows,
                               size_t c) {
  const slopes by = {mean, a, b, factor};
  if (x.rounder == NULL) {
    const halves none = {NULL, NULL};
    FOR_SPANS(normalize_backward_of, c, dx, dy.data, x.data, none, by, rows);
  } else {
    const vec_half of_dy = vec_half_for(dy.rounder), of_x = vec_half_for(x.rounder);
    const halves both = {&of_dy, &of_x};
    FOR_SPANS(normalize_backward_of, c, dx, dy.data, x.data, both, by, rows);
  }
}

#else /* loops that the compiler vectorises, over channels */

static bool reads(const void *codes, size_t n, const mptl_rounder *r) {
  (void)codes, (void)n, (void)r;
  return false;
}

static void moments(float *restrict sum, float *restrict sum2, mptl_pixels pixels,
                    const float *restrict centre, size_t rows, size_t c) {
  const float *restrict x = pixels.data;
  for (size_t r = 0; r < rows; r++, x += c)
    for (size_t i = 0; i < c; i++) {
      float d = x[i] - centre[i];
      sum[i] += d;
      sum2[i] += d * d;
    }
}

static void normalize(float *restrict y, mptl_pixels pixels, const float *restrict factor,
                      const float *restrict term, size_t rows, size_t c) {
  const float *restrict x = pixels.data;
  for (size_t r = 0; r < rows; r++, x += c, y += c)
    for (size_t i = 0; i < c; i++) y[i] = x[i] * factor[i] + term[i];
}

static void backward_sums(float *restrict sum_dy, float *restrict sum_dyx, mptl_pixels gradients,
                          mptl_pixels pixels, const float *restrict mean, size_t rows, size_t c) {
  const float *restrict dy = gradients.data, *restrict x = pixels.data;
  for (size_t r = 0; r < rows; r++, x += c, dy += c)
    for (size_t i = 0; i < c; i++) {
      sum_dy[i] += dy[i];
      sum_dyx[i] += dy[i] * (x[i] - mean[i]);
    }
}

static void normalize_backward(float *restrict dx, mptl_pixels gradients, mptl_pixels pixels,
                               const float *restrict mean, const float *restrict a,
                               const float *restrict b, const float *restrict factor, size_t rows,
                               size_t c) {
  const float *restrict dy = gradients.data, *restrict x = pixels.data;
  for (size_t r = 0; r < rows; r++, x += c, dy += c, dx += c)
    for (size_t i = 0; i < c; i++) dx[i] = (dy[i] - a[i] - (x[i] - mean[i]) * b[i]) * factor[i];
}

#endif

const mptl_norm_kernels MPTL_CPU(norm) = {.reads = reads,
                                          .moments = moments,
                                          .normalize = normalize,
                                          .backward_sums = backward_sums,
                                          .normalize_backward = normalize_backward};

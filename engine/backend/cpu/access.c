/* Reads and writes values, packed or in binary32: see cpu.h. */
#include <omp.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "kernels/cpu/table.h"

const float *mptl_read(const mptl_source *s, size_t offset, size_t n, float *buffer) {
  if (s->size == sizeof(float)) return (const float *)s->data + offset;
  mptl_decode_f32(buffer, (const char *)s->data + offset * s->size, n, s->rounder);
  return buffer;
}

void mptl_read_bf16(const mptl_source *s, size_t offset, size_t n, uint16_t *buffer) {
  if (s->size == sizeof(float))
    mptl_layers()->to_bf16(buffer, (const float *)s->data + offset, n);
  else
    mptl_cpu_kernels_get()->decode_bf16(buffer, (const char *)s->data + offset * s->size, n,
                                        s->rounder);
}

void mptl_read_bf16_rows(const mptl_source *s, size_t offset, size_t columns, size_t step,
                         size_t rows, uint16_t *to, size_t to_step) {
  if (s->size < sizeof(float)) {
    mptl_cpu_kernels_get()->decode_bf16_rows(to, to_step, (const char *)s->data + offset * s->size,
                                             step, columns, rows, s->rounder);
    return;
  }
  const float *from = (const float *)s->data + offset;
  for (size_t i = 0; i < rows; i++)
    mptl_layers()->to_bf16(to + i * to_step, from + i * step, columns);
}

float *mptl_results(const mptl_sink *s, size_t offset, float *buffer) {
  bool in_place = mptl_stores_floats(s) && s->rounder->is_identity;
  return in_place ? (float *)s->data + offset : buffer;
}

void mptl_add_exponents(mptl_exponents *exponents, const float *x, size_t n) {
  mptl_exponents here = {0};
  for (size_t i = 0; i < n; i++) mptl_count_exponent(&here, mptl_f32_bits(x[i]));
#pragma omp critical(mptl_exponents)
  mptl_exponents_merge(exponents, &here);
}

void mptl_note_largest(mptl_round_stats *stats, const float *results, size_t n) {
  float largest = mptl_max_abs_f32(results, n);
  if (largest > stats->max_abs) stats->max_abs = largest;
}

void mptl_write(const mptl_sink *s, size_t offset, size_t n, float *results,
                mptl_round_stats *stats) {
  uint64_t index = s->index0 + offset;
  if (s->ranging) {
    mptl_note_largest(stats, results, n);
    return;
  }
  if (s->exponents) mptl_add_exponents(s->exponents, results, n);
  if (s->size < sizeof(float) && !s->accumulate) {
    mptl_encode_f32((char *)s->data + offset * s->size, results, n, s->rounder, s->key, index,
                    stats);
    return;
  }
  float *dst = (float *)s->data + offset, *rounded = s->accumulate ? results : dst;
  if (!s->rounder->is_identity) {
    mptl_round_f32(rounded, results, n, s->rounder, s->key, index, stats);
  } else {
    stats->elements += n;
    if (rounded != results) memcpy(rounded, results, n * sizeof *dst);
  }
  if (s->accumulate) mptl_layers()->accumulate(dst, rounded, n);
}

void mptl_write_codes(const mptl_sink *s, size_t offset, size_t n, const void *codes,
                      float *buffer) {
  char *dst = (char *)s->data + offset * s->size;
  if (s->size < sizeof(float)) {
    memcpy(dst, codes, n * s->size);
  } else {
    mptl_decode_f32(s->accumulate ? buffer : (float *)dst, codes, n, s->rounder);
    if (s->accumulate) mptl_layers()->accumulate((float *)dst, buffer, n);
  }
}

void mptl_write_parallel(const mptl_call *call, const mptl_sink *sink, size_t offset, size_t n,
                         float *results) {
#pragma omp parallel num_threads(mptl_threads(call)) if (n > MPTL_TILE)
  {
    mptl_round_stats stats = {0};
#pragma omp for schedule(static)
    for (size_t at = 0; at < n; at += MPTL_TILE)
      mptl_write(sink, offset + at, n - at < MPTL_TILE ? n - at : MPTL_TILE, results + at, &stats);
#pragma omp critical(mptl_write_stats)
    mptl_stats_merge(sink->stats, &stats);
  }
}

size_t mptl_rows_scratch_bytes(const mptl_call *call, size_t row_floats) {
  return (size_t)mptl_threads(call) * mptl_aligned(row_floats * sizeof(float));
}

void mptl_run_rows(const mptl_call *call, size_t count, size_t row_floats, mptl_row_fn *fn,
                   const mptl_sink *sinks, int n_sinks) {
#pragma omp parallel num_threads(mptl_threads(call)) if (count > 1)
  {
    float *buffer = (float *)((char *)call->scratch + (size_t)omp_get_thread_num() *
                                                          mptl_aligned(row_floats * sizeof(float)));
    mptl_round_stats stats[MPTL_MAX_INPUTS] = {{0}};
#pragma omp for schedule(static)
    for (size_t row = 0; row < count; row++) fn(call, row, buffer, stats);
#pragma omp critical(mptl_row_stats)
    for (int k = 0; k < n_sinks; k++)
      if (mptl_wanted(&sinks[k])) mptl_stats_merge(sinks[k].stats, &stats[k]);
  }
}

/* Plans of forward and backward by data in bf16 (conv_bf16_plan.h), and their memory. */
#include "backend/cpu/conv_bf16_plan.h"

#include <stdlib.h>

#include "core/memory.h"

enum { SIDE = MPTL_BF16_SIDE, TERMS = MPTL_BF16_TERMS, BLOCK = MPTL_BF16_BLOCK };

static int round_up(int n, int to) { return (n + to - 1) / to * to; }

/* Cuts the spans of a phase's window into blocks. */
static mptl_status cut(mptl_conv_blocks *b, const mptl_conv_phase *p, int window_rows) {
  const mptl_conv_kind *kind = &p->kind[0];
  const size_t spans = (size_t)window_rows * kind->spans_of_row, terms = spans * kind->length;
  size_t at = 0;
  b->n = (terms + TERMS - 1) / TERMS;
  b->run = malloc((b->n + spans + 1) * sizeof *b->run);
  b->first = malloc((b->n + 1) * sizeof *b->first);
  b->place = malloc((b->n + 1) * sizeof *b->place);
  if (b->run == NULL || b->first == NULL || b->place == NULL)
    return mptl_fail(MPTL_ENOMEM, "no memory");
  for (size_t t = 0; t < spans; t++)
    for (size_t i = 0, count; i < kind->length; i += count, at += count) {
      const size_t left = TERMS - at % TERMS;
      count = kind->length - i < left ? kind->length - i : left;
      if (at % TERMS == 0) b->first[at / TERMS] = b->runs, b->place[at / TERMS] = kind->span[t] + i;
      b->run[b->runs++] = (mptl_bf16_run){.from = kind->span[t] + i,
                                          .block = at / TERMS,
                                          .to = (unsigned)(at % TERMS),
                                          .count = (unsigned)count};
    }
  b->first[b->n] = b->runs;
  b->is_whole = b->runs == b->n && terms % TERMS == 0;
  return MPTL_OK;
}

/* Bands whose operands are a quarter of the second-level cache, and chunks whose results are
 * another one. */
static void make_bands(mptl_conv_bf16 *f) {
  mptl_conv *v = &f->v;
  const size_t cache = v->piece_floats * sizeof(float); /* a quarter */
  const int rows = mptl_conv_padded_rows(v, v->lines);
  if (mptl_conv_padded_bytes(f, rows) <= cache) {
    const size_t images = cache / mptl_conv_padded_bytes(f, rows);
    int bands = images >= (size_t)v->s.n ? 1 : (int)(((size_t)v->s.n + images - 1) / images);
    bands = mptl_conv_least(round_up(bands, v->threads), v->s.n);
    f->band_images = (v->s.n + bands - 1) / bands;
    v->bands = bands;
    v->band_lines = f->band_images * v->lines;
    v->band_rows = f->band_images * rows;
  } else {
    int lines = v->lines;
    while (lines > 1 && mptl_conv_padded_bytes(f, mptl_conv_padded_rows(v, lines)) > cache) lines--;
    f->band_images = 1;
    v->bands_of_image = (v->lines + lines - 1) / lines;
    v->bands = v->s.n * v->bands_of_image;
    v->band_lines = (v->lines + v->bands_of_image - 1) / v->bands_of_image;
    v->band_rows = mptl_conv_padded_rows(v, v->band_lines);
  }
  const size_t results = cache / sizeof(float) / mptl_conv_bf16_columns(f);
  const int pixels = results < MPTL_CONV_PIXELS ? (int)results : MPTL_CONV_PIXELS,
            lines = pixels / v->phases[0].columns;
  const int chunks = lines > 0 ? (v->band_lines + lines - 1) / lines : v->band_lines;
  v->chunk_lines = (v->band_lines + chunks - 1) / chunks;
  f->chunk_pixels = round_up(v->chunk_lines * v->phases[0].columns, SIDE);
}

static mptl_status plan(mptl_conv_bf16 *f) {
  mptl_conv *v = &f->v;
  MPTL_TRY(mptl_conv_plan(v));
  f->blocks = calloc((size_t)v->n_phases, sizeof *f->blocks);
  if (f->blocks == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  size_t most = 1;
  for (int i = 0; i < v->n_phases; i++) {
    mptl_conv_blocks *b = &f->blocks[i];
    MPTL_TRY(cut(b, &v->phases[i], v->phases[i].window_rows));
    b->packed = f->packed;
    f->packed += b->n * f->column_parts * BLOCK * mptl_conv_column_tiles(f);
    if (b->n > most) most = b->n;
  }
  const size_t at_once = MPTL_CONV_PIECE / (f->row_parts * f->column_parts),
               pieces = (most + at_once - 1) / at_once;
  f->piece = (most + pieces - 1) / pieces;
  for (size_t i = 0; i < MPTL_CONV_PIECE; i++) f->gathered[i] = i * BLOCK;
  make_bands(f);
  return MPTL_OK;
}

mptl_status mptl_conv_bf16_create(mptl_conv_bf16 **conv, const mptl_bf16_kernels *kernels,
                                  int threads, const mptl_conv_shape *shape, mptl_pass pass,
                                  const unsigned parts[2]) {
  MPTL_TRY(mptl_conv_check(shape));
  mptl_conv_bf16 *f = calloc(1, sizeof *f);
  if (f == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  f->v = (mptl_conv){
      .s = *shape, .pass = pass, .threads = threads, .kernels = mptl_products(), .is_padded = true};
  f->kernels = kernels;
  f->row_parts = parts[pass == MPTL_BACKWARD_WEIGHTS]; /* there rows are of dy */
  f->column_parts = parts[pass != MPTL_BACKWARD_WEIGHTS];
  mptl_status status = pass == MPTL_BACKWARD_WEIGHTS ? mptl_conv_bf16_plan_weights(f) : plan(f);
  if (status != MPTL_OK) {
    mptl_conv_bf16_destroy(f);
    return status;
  }
  *conv = f;
  return MPTL_OK;
}

void mptl_conv_bf16_destroy(mptl_conv_bf16 *f) {
  if (f == NULL) return;
  for (int i = 0; f->blocks != NULL && i < f->v.n_phases; i++) {
    free(f->blocks[i].run);
    free(f->blocks[i].first);
    free(f->blocks[i].place);
  }
  free(f->blocks);
  free(f->blocks_of_unit);
  free(f->class_rows);
  free(f->class_of);
  free(f->row_of);
  mptl_conv_release(&f->v);
  free(f);
}

/* ---- Memory ---- */

mptl_conv_bf16_areas mptl_conv_bf16_areas_of(const mptl_conv_bf16 *f) {
  const mptl_conv *v = &f->v;
  const size_t pixels = (size_t)f->chunk_pixels,
               out = (size_t)v->chunk_lines * (size_t)v->out_stride_y * (size_t)v->out_w;
  mptl_conv_bf16_areas a = {.operand = 0};
  a.blocks = mptl_aligned(mptl_conv_padded_bytes(f, v->band_rows) + TERMS * sizeof(uint16_t));
  a.tiles = a.blocks + f->row_parts * MPTL_CONV_PIXELS * TERMS * f->piece * sizeof(uint16_t);
  a.results = a.tiles + mptl_aligned(pixels * mptl_conv_bf16_columns(f) * sizeof(float));
  a.places =
      a.results +
      (mptl_conv_moves_results(f) ? mptl_aligned(out * (size_t)v->out_c * sizeof(float)) : 0);
  a.bytes = a.places + mptl_aligned(2 * (size_t)v->chunk_lines * sizeof(size_t));
  return a;
}

size_t mptl_conv_bf16_packed_bytes(const mptl_conv_bf16 *f) {
  return mptl_aligned(f->packed * sizeof(uint16_t));
}

size_t mptl_conv_bf16_scratch_bytes(const mptl_conv_bf16 *f) {
  if (f->v.pass == MPTL_BACKWARD_WEIGHTS) return mptl_conv_bf16_weights_bytes(f);
  return (size_t)f->v.threads * mptl_conv_bf16_areas_of(f).bytes;
}

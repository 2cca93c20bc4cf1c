/* Tiles: see cpu.h. */
#include <omp.h>

#include "backend/cpu/cpu.h"

size_t mptl_thread_limit(void) { return (size_t)omp_get_max_threads(); }

void mptl_run_tiles(mptl_call *call, size_t total, size_t unit, mptl_tile_fn fn, mptl_sink *sinks, int n_sinks) {
  size_t size = unit > MPTL_TILE ? unit : MPTL_TILE / unit * unit, count = (total + size - 1) / size;
#pragma omp parallel if (count > 1)
  {
    float stack[MPTL_TILE] __attribute__((aligned(64)));
    float *large = NULL;
    /* Units beyond a tile (a row of thousands of classes) compute into the operator's scratch. */
    if (size > MPTL_TILE) large = (float *)call->scratch + (size_t)omp_get_thread_num() * size;
    mptl_tile tile = {.scratch = large ? large : stack};
#pragma omp for schedule(static)
    for (size_t i = 0; i < count; i++) {
      tile.offset = i * size;
      tile.n = total - tile.offset < size ? total - tile.offset : size;
      fn(call, &tile);
    }
#pragma omp critical(mptl_tile_stats)
    for (int k = 0; k < n_sinks; k++)
      if (sinks[k].stats != NULL) mptl_stats_merge(sinks[k].stats, &tile.stats[k]);
  }
}

float *mptl_tile_begin(const mptl_sink *sink, const mptl_tile *tile) {
  return sink->accumulate ? tile->scratch : sink->data + tile->offset;
}

void mptl_tile_end(const mptl_sink *sink, mptl_tile *tile, float *results, int which) {
  if (sink->rounder->is_identity)
    tile->stats[which].elements += tile->n;
  else
    mptl_round_f32(results, results, tile->n, sink->rounder, sink->key, sink->index0 + tile->offset, &tile->stats[which]);
  float *dst = sink->data + tile->offset;
  if (sink->accumulate) mptl_layers()->accumulate(dst, results, tile->n);
}

typedef struct store_call {
  mptl_call call; /* first, so that the tile function finds the rest */
  mptl_sink *sink;
  float *results;
} store_call;

static void store_tile(const mptl_call *call, mptl_tile *tile) {
  const store_call *s = (const store_call *)call;
  mptl_tile_end(s->sink, tile, s->results + tile->offset, 0);
}

void mptl_store(mptl_call *call, mptl_sink *sink, float *results, size_t n) {
  store_call s = {.call = *call, .sink = sink, .results = results};
  mptl_run_tiles(&s.call, n, 64, store_tile, sink, 1);
}

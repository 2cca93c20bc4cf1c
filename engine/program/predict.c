/* Memory that training under an assignment takes, without compiling it. */
#include <stdlib.h>

#include "mptl/program.h"
#include "program/lifetimes.h"

static size_t element_bytes(mptl_format format, mptl_value_storage storage) {
  return storage == MPTL_EMULATED ? sizeof(float) : mptl_code_size(format);
}

mptl_status mptl_predict_memory(mptl_memory_plan *memory, const mptl_assignment *a, mptl_value_storage storage) {
  const mptl_graph *g = a->graph;
  mptl_lifetime *t = calloc((size_t)g->n_ops, sizeof *t);
  mptl_block *blocks = calloc(2 * (size_t)g->n_ops, sizeof *blocks);
  mptl_status status = t && blocks ? mptl_find_lifetimes(t, g, true, false) : mptl_fail(MPTL_ENOMEM, "memory plan: no memory");
  *memory = (mptl_memory_plan){0};
  for (int i = 0; status == MPTL_OK && i < g->n_ops; i++) {
    const mptl_assigned *tensors = a->tensors[i];
    /* A gradient that is a sum of several is not rounded again: it stays in binary32. */
    size_t gradient = t[i].readers > 1 ? sizeof(float) : element_bytes(tensors[MPTL_DV].format, storage);
    t[i].value.bytes = tensors[MPTL_V].numel * element_bytes(tensors[MPTL_V].format, storage);
    t[i].gradient.bytes = t[i].wants_gradient ? tensors[MPTL_DV].numel * gradient : 0;
    if (t[i].value.last >= g->n_ops) memory->saved += t[i].value.bytes;
    memory->rounded += tensors[MPTL_THETA].numel * element_bytes(tensors[MPTL_THETA].format, storage);
    blocks[2 * i] = t[i].value;
    blocks[2 * i + 1] = t[i].gradient;
  }
  for (int i = 0; i < g->n_params; i++) memory->parameters += g->params[i].numel * sizeof(float) * (g->params[i].buffer ? 1 : 3);
  if (status == MPTL_OK) status = mptl_place_blocks(blocks, 2 * g->n_ops, &memory->arena);
  memory->total = memory->parameters + memory->rounded + memory->arena;
  free(t);
  free(blocks);
  return status;
}

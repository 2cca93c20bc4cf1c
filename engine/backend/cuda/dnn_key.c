/* Keys of plans. */
#include "backend/cuda/dnn_key.h"

bool mptl_dnn_same_key(const mptl_dnn_key *a, const mptl_dnn_key *b) {
  return mptl_same_products(&a->shape, &b->shape) && a->pass == b->pass && a->first == b->first &&
         a->second == b->second && a->workspace_limit == b->workspace_limit;
}

bool mptl_dnn_is_compiled(const mptl_dnn_key *key) {
  return mptl_cuda_type_size(key->first) < sizeof(float) || key->shape.groups > 1;
}

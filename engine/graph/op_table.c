/* The table of operators. A new operator is a row here, its shape rule in the file of its family in this folder, and its
 * forward and backward in each backend (the tables in their backend.c). */
#include <string.h>

#include "graph/ops.h"

static const mptl_op_kind *const table[] = {
    &mptl_op_input,   &mptl_op_conv2d, &mptl_op_linear, &mptl_op_batchnorm2d, &mptl_op_relu,     &mptl_op_relu6,
    &mptl_op_sigmoid, &mptl_op_add,    &mptl_op_mul,    &mptl_op_dropout,     &mptl_op_avgpool,  &mptl_op_maxpool,
    &mptl_op_mean,    &mptl_op_concat, &mptl_op_slice,  &mptl_op_log_softmax, &mptl_op_nll_loss,
};

const mptl_op_kind *mptl_op_kind_at(size_t index) { return index < sizeof table / sizeof *table ? table[index] : NULL; }

const mptl_op_kind *mptl_op_kind_find(const char *name) {
  char names[512] = "";
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    if (strcmp(table[i]->name, name) == 0) return table[i];
    strcat(strcat(names, i ? ", " : ""), table[i]->name);
  }
  mptl_fail(MPTL_EINVAL, "operator %s: unknown, accepted are %s", name, names);
  return NULL;
}

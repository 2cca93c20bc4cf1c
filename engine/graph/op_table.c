/* The table of operators, by id. The rows are in the other files of this folder, a file for each
 * family of operators. */
#include <stdio.h>
#include <string.h>

#include "graph/ops.h"

#define TABLE_ROW(name, NAME) [MPTL_OP_##NAME] = &mptl_op_##name,
static const mptl_op_kind *const table[MPTL_OP_IDS] = {MPTL_OPERATORS(TABLE_ROW)};
#undef TABLE_ROW

const mptl_op_kind *mptl_op_kind_at(size_t id) { return id < MPTL_OP_IDS ? table[id] : NULL; }

const mptl_op_kind *mptl_op_kind_find(const char *name) {
  char names[512] = "";
  size_t used = 0;
  for (size_t i = 0; i < MPTL_OP_IDS; i++) {
    if (strcmp(table[i]->name, name) == 0) return table[i];
    if (used < sizeof names)
      used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                               table[i]->name);
  }
  mptl_fail(MPTL_EINVAL, "operator %s: unknown, accepted are %s", name, names);
  return NULL;
}

/* Attributes of operators by name: one table for their type and limits. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "mptl/graph.h"

typedef enum { PAIR, INTEGER, REAL, FLAG } attribute_type;

static const struct {
  const char *name;
  attribute_type type;
  size_t offset;
  double min, max; /* accepted values */
} table[] = {
    {"out", INTEGER, offsetof(mptl_attributes, out), 1, 1 << 24},
    {"kernel", PAIR, offsetof(mptl_attributes, kernel), 1, 1 << 16},
    {"stride", PAIR, offsetof(mptl_attributes, stride), 1, 1 << 16},
    {"padding", PAIR, offsetof(mptl_attributes, padding), 0, 1 << 16},
    {"dilation", PAIR, offsetof(mptl_attributes, dilation), 1, 1 << 16},
    {"groups", INTEGER, offsetof(mptl_attributes, groups), 1, 1 << 24},
    {"bias", FLAG, offsetof(mptl_attributes, bias), 0, 1},
    {"count_include_pad", FLAG, offsetof(mptl_attributes, count_include_pad), 0, 1},
    {"eps", REAL, offsetof(mptl_attributes, eps), 0, 1},
    {"momentum", REAL, offsetof(mptl_attributes, momentum), 0, 1},
    {"p", REAL, offsetof(mptl_attributes, p), 0, 1},
    {"first", INTEGER, offsetof(mptl_attributes, first), 0, 1 << 24},
    {"count", INTEGER, offsetof(mptl_attributes, count), 1, 1 << 24},
    {"shuffle", INTEGER, offsetof(mptl_attributes, shuffle), 1, 1 << 24},
};

mptl_attributes mptl_attributes_default(void) {
  return (mptl_attributes){.kernel = {1, 1},
                           .stride = {1, 1},
                           .dilation = {1, 1},
                           .groups = 1,
                           .bias = true,
                           .count_include_pad = true,
                           .eps = 1e-5,
                           .momentum = 0.1,
                           .p = 0.5,
                           .shuffle = 1};
}

mptl_status mptl_attributes_set(mptl_attributes *attributes, const char *name, int count, const double *values) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    if (strcmp(table[i].name, name) != 0) continue;
    if (count < 1 || count > (table[i].type == PAIR ? 2 : 1)) return mptl_fail(MPTL_EINVAL, "%s: %d values", name, count);
    for (int k = 0; k < count; k++) {
      bool whole = table[i].type == REAL || values[k] == floor(values[k]);
      if (!whole || !(values[k] >= table[i].min && values[k] <= table[i].max))
        return mptl_fail(MPTL_EINVAL, "%s: %g, accepted are %s%g to %g", name, values[k],
                         table[i].type == REAL ? "" : "whole numbers ", table[i].min, table[i].max);
    }
    void *field = (char *)attributes + table[i].offset;
    switch (table[i].type) {
      case PAIR:
        ((int *)field)[0] = (int)values[0];
        ((int *)field)[1] = (int)values[count - 1];
        break;
      case INTEGER:
        *(int *)field = (int)values[0];
        break;
      case REAL:
        *(double *)field = values[0];
        break;
      case FLAG:
        *(bool *)field = values[0] != 0;
        break;
    }
    return MPTL_OK;
  }
  return mptl_fail(MPTL_EINVAL, "attribute %s: unknown", name);
}

/* Sets attributes of operators by name. */
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
#define ROW(name, type, min, max, initial) {#name, type, offsetof(mptl_attributes, name), min, max},
    MPTL_ATTRIBUTES(ROW)
#undef ROW
};

mptl_attributes mptl_attributes_default(void) {
#define PAIR(value) \
  { (value), (value) }
#define INTEGER(value) value
#define REAL(value) value
#define FLAG(value) value
#define ROW(name, type, min, max, initial) .name = type(initial),
  return (mptl_attributes){MPTL_ATTRIBUTES(ROW)};
#undef ROW
#undef PAIR
#undef INTEGER
#undef REAL
#undef FLAG
}

mptl_status mptl_attributes_set(mptl_attributes *attributes, const char *name, int count,
                                const double *values) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    if (strcmp(table[i].name, name) != 0) continue;
    if (count < 1 || count > (table[i].type == PAIR ? 2 : 1))
      return mptl_fail(MPTL_EINVAL, "%s: %d values", name, count);
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

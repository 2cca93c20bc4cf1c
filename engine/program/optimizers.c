/* The table of optimizers. A new one is a row here, and a row and a function in kernels/optimizers.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mptl/optimizer.h"

static void sgd_factors(float *of, const double *settings, long long updates) {
  of[MPTL_SGD_LR] = (float)settings[0];
  of[MPTL_SGD_MOMENTUM] = updates == 0 ? 0.0f : (float)settings[1]; /* the first update sets the buffer */
  of[MPTL_SGD_WEIGHT_DECAY] = (float)settings[2];
}

static const mptl_optimizer table[MPTL_OPTIMIZER_IDS] = {
    [MPTL_OPTIMIZER_SGD] = {.id = MPTL_OPTIMIZER_SGD,
                            .name = "sgd",
                            .n_states = 1,
                            .states = {"momentum"},
                            .n_settings = 3,
                            .settings = {{"lr", 0.1, 0, INFINITY, true},
                                         {"momentum", 0.9, 0, 1, true},
                                         {"weight_decay", 5e-4, 0, INFINITY, true}},
                            .factors = sgd_factors},
};

const mptl_optimizer *mptl_optimizer_at(size_t id) { return id < MPTL_OPTIMIZER_IDS ? &table[id] : NULL; }

const mptl_optimizer *mptl_optimizer_find(const char *name) {
  char names[256] = "";
  size_t used = 0;
  for (size_t i = 0; i < MPTL_OPTIMIZER_IDS; i++) {
    if (strcmp(table[i].name, name) == 0) return &table[i];
    if (used < sizeof names)
      used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", table[i].name);
  }
  mptl_fail(MPTL_EINVAL, "optimizer %s: unknown, accepted are %s", name, names);
  return NULL;
}

mptl_status mptl_optimizer_check(const mptl_optimizer *o, const double *values) {
  for (int i = 0; i < o->n_settings; i++) {
    const mptl_optimizer_setting *s = &o->settings[i];
    if (values[i] >= s->least && (s->below ? values[i] < s->most : values[i] <= s->most)) continue;
    if (isinf(s->most))
      return mptl_fail(MPTL_EINVAL, "%s: %s = %g, must be a number of at least %g", o->name, s->name, values[i], s->least);
    return mptl_fail(MPTL_EINVAL, "%s: %s = %g, must be a number of at least %g and %s %g", o->name, s->name, values[i], s->least,
                     s->below ? "below" : "at most", s->most);
  }
  return MPTL_OK;
}

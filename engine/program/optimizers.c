/* The table of optimizers. A new optimizer is a row here, with a function that computes the
 * factors, and a row and a function in kernels/optimizers.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mptl/optimizer.h"

static void sgd_factors(float *of, const double *settings, long long updates) {
  of[MPTL_SGD_LR] = (float)settings[0];
  of[MPTL_SGD_MOMENTUM] =
      updates == 0 ? 0.0f : (float)settings[1]; /* the first update sets the momentum */
  of[MPTL_SGD_WEIGHT_DECAY] = (float)settings[2];
}

static void adamw_factors(float *of, const double *settings, long long updates) {
  const double lr = settings[0], beta1 = settings[1], beta2 = settings[2], eps = settings[3],
               weight_decay = settings[4];
  const double correction1 = 1 - pow(beta1, (double)updates + 1),
               correction2 = 1 - pow(beta2, (double)updates + 1);
  of[MPTL_ADAMW_KEEP] = (float)(1 - lr * weight_decay);
  of[MPTL_ADAMW_WEIGHT_DECAY] = (float)weight_decay;
  of[MPTL_ADAMW_TAKE1] = (float)(1 - beta1);
  of[MPTL_ADAMW_BETA2] = (float)beta2;
  of[MPTL_ADAMW_TAKE2] = (float)(1 - beta2);
  of[MPTL_ADAMW_LR] = (float)(lr / correction1);
  of[MPTL_ADAMW_CORRECTION1] = (float)correction1;
  of[MPTL_ADAMW_CORRECTION2] = (float)sqrt(correction2);
  of[MPTL_ADAMW_EPS] = (float)eps;
}

#define STATES(name, NAME, states) NAME##_STATES = states,
enum { MPTL_OPTIMIZERS(STATES) };
#undef STATES

static const mptl_optimizer table[MPTL_OPTIMIZER_IDS] = {
    [MPTL_OPTIMIZER_SGD] = {.id = MPTL_OPTIMIZER_SGD,
                            .name = "sgd",
                            .n_states = SGD_STATES,
                            .states = {"momentum"},
                            .n_settings = 3,
                            .settings = {{"lr", 0.1, 0, INFINITY, true},
                                         {"momentum", 0.9, 0, 1, true},
                                         {"weight_decay", 5e-4, 0, INFINITY, true}},
                            .factors = sgd_factors},
    [MPTL_OPTIMIZER_ADAMW] = {.id = MPTL_OPTIMIZER_ADAMW,
                              .name = "adamw",
                              .n_states = ADAMW_STATES,
                              .states = {"exp_avg", "exp_avg_sq"},
                              .n_settings = 5,
                              .settings = {{"lr", 1e-3, 0, INFINITY, true},
                                           {"beta1", 0.9, 0, 1, true},
                                           {"beta2", 0.999, 0, 1, true},
                                           {"eps", 1e-8, 0, INFINITY, true},
                                           {"weight_decay", 0.01, 0, INFINITY, true}},
                              .factors = adamw_factors},
};

const mptl_optimizer *mptl_optimizer_at(size_t id) {
  return id < MPTL_OPTIMIZER_IDS ? &table[id] : NULL;
}

const mptl_optimizer *mptl_optimizer_find(const char *name) {
  char names[256] = "";
  size_t used = 0;
  for (size_t i = 0; i < MPTL_OPTIMIZER_IDS; i++) {
    if (strcmp(table[i].name, name) == 0) return &table[i];
    if (used < sizeof names)
      used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                               table[i].name);
  }
  mptl_fail(MPTL_EINVAL, "optimizer %s: unknown, accepted are %s", name, names);
  return NULL;
}

mptl_status mptl_optimizer_check(const mptl_optimizer *o, const double *values) {
  for (int i = 0; i < o->n_settings; i++) {
    const mptl_optimizer_setting *s = &o->settings[i];
    if (values[i] >= s->least && (s->below ? values[i] < s->most : values[i] <= s->most)) continue;
    if (isinf(s->most))
      return mptl_fail(MPTL_EINVAL, "%s: %s = %g, must be a number of at least %g", o->name,
                       s->name, values[i], s->least);
    return mptl_fail(MPTL_EINVAL, "%s: %s = %g, must be a number of at least %g and %s %g", o->name,
                     s->name, values[i], s->least, s->below ? "below" : "at most", s->most);
  }
  return MPTL_OK;
}

/* Optimizers as data: a row for each, with its name, its state for each parameter and its settings.
 * Their arithmetic is in kernels/optimizers.h (method.md 5.2).
 */
#ifndef MPTL_OPTIMIZER_H
#define MPTL_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/optimizers.h"
#include "mptl/status.h"

enum { MPTL_MAX_SETTINGS = 6 };

/* A setting: accepted are least <= value <= most, or value < most with below. */
typedef struct mptl_optimizer_setting {
  const char *name; /* "weight_decay" */
  double usual;     /* the default */
  double least, most;
  bool below;
} mptl_optimizer_setting;

typedef struct mptl_optimizer {
  mptl_optimizer_id id;
  const char *name;                    /* "sgd" */
  int n_states;                        /* arrays of state, each as large as the parameter */
  const char *states[MPTL_MAX_STATES]; /* "momentum", in checkpoints optimizer.momentum.PARAMETER */
  int n_settings;                      /* the first setting is the learning rate, "lr" */
  mptl_optimizer_setting settings[MPTL_MAX_SETTINGS];

  /* Computes the optimizer's factors (kernels/optimizers.h) from the settings and the number of
   * updates made before. */
  void (*factors)(float *of, const double *settings, long long updates);
} mptl_optimizer;

/* Finds an optimizer by name: NULL, with a message that lists the optimizers, if there is none. Or
 * by id: NULL beyond the last. */
MPTL_API const mptl_optimizer *mptl_optimizer_find(const char *name);
MPTL_API const mptl_optimizer *mptl_optimizer_at(size_t id);

/* Checks the values of an optimizer's settings, in the order of its row. Fails with MPTL_EINVAL and
 * the first setting that is not accepted. */
MPTL_API mptl_status mptl_optimizer_check(const mptl_optimizer *optimizer, const double *settings);

#endif

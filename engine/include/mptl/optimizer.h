/* Optimizers as data: a row has the optimizer's name, the state that it keeps for each parameter
 * and the settings that it takes. The arithmetic is in kernels/optimizers.h (method.md 5.2). */
#ifndef MPTL_OPTIMIZER_H
#define MPTL_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/optimizers.h"
#include "mptl/status.h"

enum { MPTL_MAX_SETTINGS = 6 };

/* A setting: least <= value <= most. */
typedef struct mptl_optimizer_setting {
  const char *name; /* "weight_decay" */
  double usual;     /* default */
  double least, most;
  bool below; /* value < most: most itself is not accepted */
} mptl_optimizer_setting;

typedef struct mptl_optimizer {
  mptl_optimizer_id id;
  const char *name;                    /* "sgd" */
  int n_states;                        /* arrays of state for each parameter, of its size */
  const char *states[MPTL_MAX_STATES]; /* "momentum": in checkpoints optimizer.momentum.PARAMETER */
  int n_settings;                      /* the first one is the learning rate, "lr" */
  mptl_optimizer_setting settings[MPTL_MAX_SETTINGS];

  /* Computes the factors of kernels/optimizers.h from the values of the settings and the number of
   * updates made before this one. */
  void (*factors)(float *of, const double *settings, long long updates);
} mptl_optimizer;

/* The optimizer called name; NULL, with a message that lists the names, if there is none.
 * mptl_optimizer_at finds it by id; NULL beyond the last. */
MPTL_API const mptl_optimizer *mptl_optimizer_find(const char *name);
MPTL_API const mptl_optimizer *mptl_optimizer_at(size_t id);

/* MPTL_EINVAL if a value of a setting is not accepted; the message names the setting and what it
 * accepts. */
MPTL_API mptl_status mptl_optimizer_check(const mptl_optimizer *optimizer, const double *settings);

#endif

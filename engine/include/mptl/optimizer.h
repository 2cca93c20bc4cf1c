/* Optimizers as data: a row for each says what it is called, what state it keeps for each parameter and what settings it takes. The arithmetic
 * is kernels/optimizers.h.
 */
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
  double usual;     /* the default */
  double least, most;
  bool below; /* most itself is not accepted */
} mptl_optimizer_setting;

typedef struct mptl_optimizer {
  mptl_optimizer_id id;
  const char *name;                    /* "sgd" */
  int n_states;                        /* arrays as large as a parameter */
  const char *states[MPTL_MAX_STATES]; /* "momentum": checkpoints have it as optimizer.momentum.PARAMETER */
  int n_settings;                      /* the first one is the learning rate, "lr" */
  mptl_optimizer_setting settings[MPTL_MAX_SETTINGS];

  /* The kernel's own factors, from the settings' values and the number of updates that were made before this one. */
  void (*factors)(float *of, const double *settings, long long updates);
} mptl_optimizer;

/* The optimizer called name; NULL with a message that lists them. mptl_optimizer_at is by id; NULL beyond the last. */
MPTL_API const mptl_optimizer *mptl_optimizer_find(const char *name);
MPTL_API const mptl_optimizer *mptl_optimizer_at(size_t id);

/* MPTL_EINVAL, naming the setting and what it accepts, if one of the values is out of its range. */
MPTL_API mptl_status mptl_optimizer_check(const mptl_optimizer *optimizer, const double *settings);

#endif

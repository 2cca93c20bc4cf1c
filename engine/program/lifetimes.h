/* Decides which operators run as one stage, and the lifetimes of outputs and gradients: when each
 * is written first and read last. A pure function of the graph.
 *
 * A stage has the number of its last operator. Stage r runs forward at time r and backward at time
 * 2 n_ops - 1 - r. Time 2 n_ops is after the step.
 */
#ifndef MPTL_PROGRAM_LIFETIMES_H
#define MPTL_PROGRAM_LIFETIMES_H

#include "mptl/graph.h"
#include "mptl/plan.h"
#include "program/arena.h"

/* An operator's stage, and the lifetimes of its output and its output's gradient. Only the output
 * of a stage's last operator, and its gradient, are in memory. */
typedef struct mptl_lifetime {
  bool live;           /* the loss depends on the operator */
  bool wants_gradient; /* backward computes the gradient of the output */
  int stage;           /* index of the last operator of its stage */
  int before;    /* the operator of the stage that comes before this one in the graph; -1: none */
  int stage_ops; /* if the operator is the last of its stage: how many operators the stage has */
  int readers;   /* how many inputs of live operators the output is: each sends a gradient */
  bool in_parts; /* slices divide its channels: each writes its part of the gradient */
  /* the operator adds the gradient of that input to what is there */
  bool accumulate[MPTL_MAX_INPUTS];
  mptl_block value, gradient; /* first and last are set, bytes and offset are not */
} mptl_lifetime;

/* The options of a program on which lifetimes depend. */
typedef struct mptl_lifetime_options {
  bool train;
  bool input_gradient; /* backward computes the gradient of the network's input */
  /* keep every output and gradient until after the step; every stage is one operator */
  bool keep_all;
  int stage_ops; /* most operators of a stage */
} mptl_lifetime_options;

/* When a stage runs backward. */
static inline int mptl_backward_time(const mptl_graph *graph, int stage) {
  return 2 * graph->n_ops - 1 - stage;
}

/* Fills lifetimes[n_ops]. Fails with MPTL_EINVAL if the graph has no loss. */
mptl_status mptl_find_lifetimes(mptl_lifetime *lifetimes, const mptl_graph *graph,
                                mptl_lifetime_options options);

#endif

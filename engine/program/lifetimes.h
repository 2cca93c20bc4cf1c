/* Which operators run as one stage, and when each output and each gradient of an output is written first and read last: from the
 * graph alone.
 *
 * Time runs over the stages, numbered by their last operator: stage r's forward is at time r, its backward at time 2 n_ops - 1 - r;
 * n_ops * 2 is after the step.
 */
#ifndef MPTL_PROGRAM_LIFETIMES_H
#define MPTL_PROGRAM_LIFETIMES_H

#include "mptl/graph.h"
#include "mptl/plan.h"
#include "program/arena.h"

typedef struct mptl_lifetime {
  bool live;                        /* a gradient comes to the operator from the loss */
  bool wants_gradient;              /* the gradient of its output is computed */
  int stage;                        /* the operator that its stage ends with; only that one's output and gradient are in memory */
  int stage_ops;                    /* operators of the stage that ends here */
  int readers;                      /* live operators that send a gradient to its output */
  bool in_parts;                    /* ... that are slices and share out its channels: each writes its part */
  bool accumulate[MPTL_MAX_INPUTS]; /* its gradient of that input is added to what others have written */
  mptl_block value, gradient;       /* first and last; bytes are the caller's to set; gradient only if wanted */
} mptl_lifetime;

/* What a program is for, as far as lifetimes depend on it. */
typedef struct mptl_lifetime_options {
  bool train;
  bool input_gradient; /* the gradient of the network's input is wanted */
  bool keep_all;       /* every output and gradient is to be seen after the step: each operator is a stage of its own */
  int stage_ops;       /* operators of a stage at most */
} mptl_lifetime_options;

static inline int mptl_backward_time(const mptl_graph *graph, int stage) { return 2 * graph->n_ops - 1 - stage; }

/* Fills lifetimes[n_ops]. Fails unless the graph has a loss. */
mptl_status mptl_find_lifetimes(mptl_lifetime *lifetimes, const mptl_graph *graph, mptl_lifetime_options options);

#endif

/* When each output and each gradient of an output is written first and read last, from the graph alone.
 *
 * Time runs over the operators: operator i's forward is at time i, its backward at time 2 n_ops - 1 - i; n_ops * 2 is after the step.
 */
#ifndef MPTL_PROGRAM_LIFETIMES_H
#define MPTL_PROGRAM_LIFETIMES_H

#include "mptl/graph.h"
#include "mptl/plan.h"
#include "program/arena.h"

typedef struct mptl_lifetime {
  bool live;                        /* a gradient comes to the operator from the loss */
  bool wants_gradient;              /* the gradient of its output is computed */
  int readers;                      /* live operators that send a gradient to its output */
  bool accumulate[MPTL_MAX_INPUTS]; /* its gradient of that input is added to what others have written */
  mptl_block value, gradient;       /* first and last; bytes are the caller's to set; gradient only if wanted */
} mptl_lifetime;

static inline int mptl_backward_time(const mptl_graph *graph, int op) { return 2 * graph->n_ops - 1 - op; }

/* Fills lifetimes[n_ops]. Fails unless the graph ends in nll_loss. */
mptl_status mptl_find_lifetimes(mptl_lifetime *lifetimes, const mptl_graph *graph, bool train, bool input_gradient);

#endif

/* Precision assignments: groups, formats of tensors, ratios, promotion (Lee, Sharma, Aiken, TMLR
 * 2023, section 4; method.md 3.6 and 4).
 *
 * Pure functions of a graph, without a device. Policies, which choose what is low, are Lua
 * functions (lua/mptl/precision) that use these.
 */
#ifndef MPTL_PLAN_H
#define MPTL_PLAN_H

#include "mptl/format.h"
#include "mptl/graph.h"
#include "mptl/round.h"

/* The four tensors of an operator: its output v, the gradient dv of its output, its parameters
 * theta, their gradients dtheta (method.md 3.2). */
typedef enum mptl_role { MPTL_V, MPTL_DV, MPTL_THETA, MPTL_DTHETA, MPTL_ROLES } mptl_role;

/* The names of mptl_role, "v", "dv", "theta", "dtheta", by index from 0; NULL after the last. */
MPTL_API const char *mptl_role_name(size_t index);

/* The candidates C: a high and a low format for each role (method.md 4.1). */
typedef struct mptl_candidates {
  mptl_format high[MPTL_ROLES], low[MPTL_ROLES];
} mptl_candidates;

/* A tensor of an assignment. */
typedef struct mptl_assigned {
  mptl_format format;
  bool low;     /* counts as low in ratio_lo */
  size_t numel; /* elements at the assignment's batch size; 0: the operator has no such tensor */
  int group;    /* v, dv: the operator's; theta, dtheta: the group of the operator that computes its
                   input */
  int next;     /* the next tensor of the group (operator * MPTL_ROLES + role), -1: none */
} mptl_assigned;

typedef struct mptl_group {
  size_t activations, parameters; /* elements of v; of theta */
  size_t numel;                   /* 2 * (activations + parameters), with their gradients */
  bool low;  /* demoted as a whole; the promotion of a single tensor does not change it */
  int first; /* the first of its tensors, a linked list; -1: none */
} mptl_group;

typedef struct mptl_assignment {
  const mptl_graph *graph; /* borrowed: must outlive the assignment */
  int batch;
  mptl_candidates candidates;
  int n_ops, n_groups;
  mptl_group *groups;
  mptl_assigned (*tensors)[MPTL_ROLES]; /* by operator */

  /* Sums over all tensors, always up to date: see mptl_ratios. */
  size_t elements, elements_low;
  size_t bits_all_high, bits_now;
} mptl_assignment;

/* Both ratios of method.md 4.2, and the sums that they are computed from: elements and bits of all
 * v, dv, theta and dtheta. */
typedef struct mptl_ratios {
  size_t elements, elements_low;
  size_t bits_all_high, bits_now;
  double ratio_lo;   /* elements_low / elements */
  double bits_ratio; /* 2 (bits_all_high - bits_now) / bits_all_high */
} mptl_ratios;

/* Creates an assignment in which every tensor is high. batch: samples. The caller owns it.
 * MPTL_EINVAL: a graph without operators, batch below 1; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_assignment_create(mptl_assignment **assignment, const mptl_graph *graph,
                                            int batch, const mptl_candidates *candidates);
MPTL_API void mptl_assignment_destroy(mptl_assignment *assignment); /* NULL is allowed */

/* Gives a tensor the low or high candidate of its role. MPTL_EINVAL: no such operator, role or
 * tensor. */
MPTL_API mptl_status mptl_assignment_set_low(mptl_assignment *assignment, int op, mptl_role role,
                                             bool low);

/* Gives a tensor any format; it counts as low if the format has fewer bits than the tensor's high
 * candidate. MPTL_EINVAL as above. */
MPTL_API mptl_status mptl_assignment_set(mptl_assignment *assignment, int op, mptl_role role,
                                         mptl_format format);

/* Makes all tensors of a group low, or high. MPTL_EINVAL: no such group. */
MPTL_API mptl_status mptl_assignment_set_group(mptl_assignment *assignment, int group, bool low);

MPTL_API mptl_ratios mptl_assignment_ratios(const mptl_assignment *assignment);

/* The statistics of a step, of one operator, by role. */
typedef mptl_round_stats mptl_op_stats[MPTL_ROLES];

/* Promotion after a step (method.md 4.5). Every low v and theta of whose elements a share of at
 * least `threshold` overflowed becomes high for good; stats has one element for each operator.
 * Calls on_promote, unless it is NULL, for each. MPTL_EINVAL unless 0 < threshold <= 1. */
MPTL_API mptl_status
mptl_assignment_promote(mptl_assignment *assignment, const mptl_op_stats *stats, double threshold,
                        void (*on_promote)(void *context, int op, mptl_role role), void *context);

#endif

/* The precision planner's ground: groups, assignments, accounting, promotion (Lee, Sharma, Aiken, TMLR 2023, section 4).
 *
 * Pure functions over a graph; no device. Policies, which choose what is low, are Lua (lua/mptl/precision) on top of these.
 */
#ifndef MPTL_PLAN_H
#define MPTL_PLAN_H

#include "mptl/format.h"
#include "mptl/graph.h"
#include "mptl/round.h"

/* The four tensors of an operator: its output, the gradient of its output, its parameters, their gradients. */
typedef enum mptl_role { MPTL_V, MPTL_DV, MPTL_THETA, MPTL_DTHETA, MPTL_ROLES } mptl_role;

/* Role names in the order of mptl_role: "v", "dv", "theta", "dtheta"; NULL beyond the end. */
MPTL_API const char *mptl_role_name(size_t index);

/* The candidate set C: a high and a low format for each role. */
typedef struct mptl_candidates {
  mptl_format high[MPTL_ROLES], low[MPTL_ROLES];
} mptl_candidates;

typedef struct mptl_assigned {
  mptl_format format;
  bool low;     /* counts as low in ratio_lo */
  size_t numel; /* elements at the assignment's batch size; 0 when the operator has no such tensor */
  int group;    /* v and dv: the operator's group; theta and dtheta: that of the producer of its input */
} mptl_assigned;

typedef struct mptl_group {
  size_t activations, parameters; /* elements of v, of theta */
  size_t numel;                   /* 2 * (activations + parameters): with their gradients */
  bool low;                       /* demoted as a whole; promotions of single tensors do not change it */
} mptl_group;

typedef struct mptl_assignment {
  const mptl_graph *graph; /* borrowed: must outlive the assignment */
  int batch;
  mptl_candidates candidates;
  int n_ops, n_groups;
  mptl_group *groups;
  mptl_assigned (*tensors)[MPTL_ROLES]; /* by operator */
} mptl_assignment;

/* Both measures of method.md 4: elements, and bits summed over v, dv, theta, dtheta. */
typedef struct mptl_ratios {
  size_t elements, elements_low;
  size_t bits_all_high, bits_now;
  double ratio_lo;   /* elements_low / elements */
  double bits_ratio; /* 2 (bits_all_high - bits_now) / bits_all_high */
} mptl_ratios;

/* Every tensor high. */
MPTL_API mptl_status mptl_assignment_create(mptl_assignment **assignment, const mptl_graph *graph, int batch,
                                            const mptl_candidates *candidates);
MPTL_API void mptl_assignment_destroy(mptl_assignment *assignment);

/* Gives a tensor its role's low or high candidate. */
MPTL_API mptl_status mptl_assignment_set_low(mptl_assignment *assignment, int op, mptl_role role, bool low);

/* Gives a tensor any format; it counts as low when it takes fewer bits than its high candidate. */
MPTL_API mptl_status mptl_assignment_set(mptl_assignment *assignment, int op, mptl_role role, mptl_format format);

/* Makes all tensors of a group low, or high. */
MPTL_API mptl_status mptl_assignment_set_group(mptl_assignment *assignment, int group, bool low);

MPTL_API mptl_ratios mptl_assignment_ratios(const mptl_assignment *assignment);

/* Statistics of one step by operator and role, as a program keeps them. */
typedef mptl_round_stats mptl_op_stats[MPTL_ROLES];

/* Promotion after a step: every theta and v tensor that is low and of whose elements a share >= threshold overflowed becomes
 * high for good. threshold must be above 0 and at most 1. Calls on_promote for each, if given. */
MPTL_API mptl_status mptl_assignment_promote(mptl_assignment *assignment, const mptl_op_stats *stats, double threshold,
                                             void (*on_promote)(void *context, int op, mptl_role role), void *context);

#endif

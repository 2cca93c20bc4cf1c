/* Optimizers: the update of one element of a parameter, for C and CUDA (method.md 5.2). A new
 * optimizer is a row and a function here, and a row in engine/program/optimizers.c with its
 * settings and their conversion to the factors below.
 *
 * A function gets the element of the binary32 master, its state (as many numbers as the row says),
 * the rounded gradient, which is still multiplied by the loss scale, and the factors of its
 * parameter group. It updates master and state, and returns the direction of the update: what it
 * subtracts from the master, divided by the learning rate. All arithmetic is binary32, each
 * operation rounded separately, so every device gives the same bits.
 */
#ifndef MPTL_KERNELS_OPTIMIZERS_H
#define MPTL_KERNELS_OPTIMIZERS_H

#include <math.h>
#include <stdint.h>

#include "kernels/random.h" /* MPTL_HD */

/* name, constant, numbers of state for each element */
#define MPTL_OPTIMIZERS(ROW) \
  ROW(sgd, SGD, 1)           \
  ROW(adamw, ADAMW, 2)

#define MPTL_OPTIMIZER_ID(name, NAME, states) MPTL_OPTIMIZER_##NAME,
typedef enum mptl_optimizer_id {
  MPTL_OPTIMIZERS(MPTL_OPTIMIZER_ID) MPTL_OPTIMIZER_IDS
} mptl_optimizer_id;
#undef MPTL_OPTIMIZER_ID

enum { MPTL_MAX_STATES = 2, MPTL_PARAMETER_GROUPS = 8 };

/* What an update multiplies with, for the parameters of a parameter group. */
typedef struct mptl_factors {
  float gradient; /* 1 / loss scale, times the factor of clipping */
  float of[11];   /* of the optimizer: the constants below */
} mptl_factors;

/* SGD with momentum: d = g / loss scale + weight_decay p; buf = momentum buf + d; p -= lr buf. In
 * the first update, momentum is 0. */
enum { MPTL_SGD_LR, MPTL_SGD_MOMENTUM, MPTL_SGD_WEIGHT_DECAY };

static inline MPTL_HD float mptl_update_sgd(float *p, float *state, float g,
                                            const mptl_factors *f) {
  float d = g * f->gradient + f->of[MPTL_SGD_WEIGHT_DECAY] * *p;
  state[0] = f->of[MPTL_SGD_MOMENTUM] * state[0] + d;
  *p -= f->of[MPTL_SGD_LR] * state[0];
  return state[0];
}

/* AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019), with the operations
 * of torch.optim.AdamW. In update t:
 *   p *= 1 - lr weight_decay; m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2;
 *   p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps). */
enum {
  MPTL_ADAMW_KEEP, /* 1 - lr weight_decay */
  MPTL_ADAMW_WEIGHT_DECAY,
  MPTL_ADAMW_TAKE1, /* 1 - beta1 */
  MPTL_ADAMW_BETA2,
  MPTL_ADAMW_TAKE2,       /* 1 - beta2 */
  MPTL_ADAMW_LR,          /* lr / (1 - beta1^t) */
  MPTL_ADAMW_CORRECTION1, /* 1 - beta1^t */
  MPTL_ADAMW_CORRECTION2, /* sqrt(1 - beta2^t) */
  MPTL_ADAMW_EPS,
};

static inline MPTL_HD float mptl_update_adamw(float *p, float *state, float g,
                                              const mptl_factors *f) {
  float d = g * f->gradient, decay = f->of[MPTL_ADAMW_WEIGHT_DECAY] * *p;
  state[0] = state[0] + f->of[MPTL_ADAMW_TAKE1] * (d - state[0]);
  state[1] = f->of[MPTL_ADAMW_BETA2] * state[1] + f->of[MPTL_ADAMW_TAKE2] * d * d;
  float root = sqrtf(state[1]) / f->of[MPTL_ADAMW_CORRECTION2] + f->of[MPTL_ADAMW_EPS];
  *p = f->of[MPTL_ADAMW_KEEP] * *p - f->of[MPTL_ADAMW_LR] * state[0] / root;
  return decay + state[0] / root / f->of[MPTL_ADAMW_CORRECTION1];
}

#endif

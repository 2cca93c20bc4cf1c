/* placeholder until the definition lands */
#ifndef MPTL_KERNELS_ROUND_H
#define MPTL_KERNELS_ROUND_H
#endif

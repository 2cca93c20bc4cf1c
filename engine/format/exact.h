/* Inside exact numbers: putting them together. */
#ifndef MPTL_FORMAT_EXACT_H
#define MPTL_FORMAT_EXACT_H

#include "mptl/exact.h"

/* Adds digits * 2^(place - 224) to the magnitude. What is below its last place makes it sticky, what is above its first one huge. */
void mptl_exact_add(mptl_exact *x, uint64_t digits, int place);

/* The largest magnitude, which overflows every format. */
void mptl_exact_set_huge(mptl_exact *x);

#endif

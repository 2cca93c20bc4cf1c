/* Inside exact numbers: how they are built. */
#ifndef MPTL_FORMAT_EXACT_H
#define MPTL_FORMAT_EXACT_H

#include "mptl/exact.h"

/* Adds digits * 2^(bit - 224) to the magnitude. Anything below its lowest bit sets sticky; anything
 * above its highest bit makes it huge. */
void mptl_exact_add(mptl_exact *x, uint64_t digits, int bit);

/* Makes the magnitude the largest one, which overflows every format. */
void mptl_exact_set_huge(mptl_exact *x);

#endif

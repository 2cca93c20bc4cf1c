/* The limits of a format's codes and values, which its description and the rounder share. */
#ifndef MPTL_FORMAT_LIMITS_H
#define MPTL_FORMAT_LIMITS_H

#include "mptl/format.h"

typedef struct mptl_format_limits {
  int emin;          /* exponent of the smallest normal value */
  double max;        /* largest finite value */
  uint32_t max_code; /* code of max; all codes here are without the sign bit */
  uint32_t inf_code; /* 0 if the format has no infinity */
  uint32_t nan_code; /* of the quiet NaN; 0 if the format has no NaN */
  bool has_infinity, has_nan;
} mptl_format_limits;

mptl_format_limits mptl_format_find_limits(mptl_format format);

#endif

/* The options of rounding, as lists, tensors and lines of text take them: see round.c. */
#ifndef MPTL_BIND_ROUNDING_H
#define MPTL_BIND_ROUNDING_H

#include "bindings/bind.h"
#include "mptl/round.h"

typedef struct bind_rounding {
  mptl_rounder rounder;
  mptl_key key;
  uint64_t index; /* of the first element */
} bind_rounding;

/* Reads the options table at index (which may be none or nil), for a format that is fitted already. */
void bind_check_rounding(lua_State *L, bind_rounding *o, mptl_format format, int index);

#endif

/* The options of rounding, which lists, tensors and lines of text share: see round.c. */
#ifndef MPTL_BIND_ROUNDING_H
#define MPTL_BIND_ROUNDING_H

#include "bindings/bind.h"
#include "mptl/round.h"

typedef struct bind_rounding {
  mptl_rounder rounder;
  mptl_key key;
  uint64_t index; /* of the first element */
} bind_rounding;

/* Reads the options table at index (which may be none or nil); the format must be fitted. */
void bind_check_rounding(lua_State *L, bind_rounding *o, mptl_format format, int index);

#endif

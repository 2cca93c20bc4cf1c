/* The CPU backend's table of operators. */
#include "backend/cpu/cpu.h"

#define TABLE_ROW(name, NAME) [MPTL_OP_##NAME] = &mptl_cpu_##name,
const mptl_cpu_op *const mptl_cpu_ops[MPTL_OP_IDS] = {MPTL_OPERATORS(TABLE_ROW)};
#undef TABLE_ROW

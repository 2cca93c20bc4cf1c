/* The table of the instruction set for which this is compiled. */
#include "kernels/cpu/table.h"

#define ENTRY(result, name, parameters) .name = MPTL_CPU(name),

extern const mptl_cpu_kernels MPTL_CPU(kernels);
const mptl_cpu_kernels MPTL_CPU(kernels) = {MPTL_CPU_KERNELS(ENTRY).codes = &MPTL_CPU(codes),
                                            .layers = &MPTL_CPU(layers),
                                            .norm = &MPTL_CPU(norm),
                                            .products = &MPTL_CPU(products),
                                            .updates = MPTL_CPU(updates),
                                            .unary = MPTL_CPU(unary)};

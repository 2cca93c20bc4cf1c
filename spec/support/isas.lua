--- The instruction sets that this machine has kernels for, by name. Specs of kernels go through all of them.
return require "mptl.core".isas()

--- The names of the instruction sets whose kernels this machine can run. Specs of kernels run all of them.
return require "mptl.core".isas()

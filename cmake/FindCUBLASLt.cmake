# cuBLASLt, which a toolkit may lack.
include(${CMAKE_CURRENT_LIST_DIR}/FindLibrary.cmake)
mptl_find_library(CUBLASLt cublaslt NVIDIA HEADER cublasLt.h LIBRARY cublasLt libcublasLt.so.13 libcublasLt.so.12)

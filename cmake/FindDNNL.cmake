# oneDNN's C API; distributions name the package libdnnl-dev.
include(${CMAKE_CURRENT_LIST_DIR}/FindLibrary.cmake)
mptl_find_library(DNNL dnnl HEADER oneapi/dnnl/dnnl.h LIBRARY dnnl VERSION DNNL_VERSION_ oneapi/dnnl/dnnl_version.h)

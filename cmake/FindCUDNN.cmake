# cuDNN 9, its graph API.
include(${CMAKE_CURRENT_LIST_DIR}/FindLibrary.cmake)
mptl_find_library(CUDNN cudnn NVIDIA HEADER cudnn_graph.h LIBRARY cudnn_graph libcudnn_graph.so.9
  VERSION CUDNN_ cudnn_version.h cudnn_version_v9.h)

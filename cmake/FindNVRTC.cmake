# NVRTC. cuDNN opens it by name. A program that is linked to it has already loaded the one that was found here.
include(${CMAKE_CURRENT_LIST_DIR}/FindLibrary.cmake)
mptl_find_library(NVRTC nvrtc NVIDIA HEADER nvrtc.h LIBRARY nvrtc libnvrtc.so.13 libnvrtc.so.12)

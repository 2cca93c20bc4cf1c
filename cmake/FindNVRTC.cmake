# NVRTC. cuDNN opens it by itself, by its name: whoever is linked to it has it loaded from where it was found here.
include(${CMAKE_CURRENT_LIST_DIR}/FindLibrary.cmake)
mptl_find_library(NVRTC nvrtc NVIDIA HEADER nvrtc.h LIBRARY nvrtc libnvrtc.so.13 libnvrtc.so.12)

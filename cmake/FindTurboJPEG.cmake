# libjpeg-turbo's TurboJPEG API; distributions name the package libturbojpeg0-dev, libturbojpeg-dev or the like.
include(${CMAKE_CURRENT_LIST_DIR}/FindLibrary.cmake)
mptl_find_library(TurboJPEG turbojpeg HEADER turbojpeg.h LIBRARY turbojpeg)

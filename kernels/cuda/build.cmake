# Compiles the CUDA kernels twice: for GPUs if there is a CUDA toolkit (mptl_cuda_kernels;
# MPTL_HAVE_CUDA is ON), and for the host, for tests (mptl_cuda_kernels_host; shim.h).
# Contraction is off, so that results equal the CPU's.
file(GLOB cuda_sources CONFIGURE_DEPENDS kernels/cuda/*.cu)
include(CheckLanguage)

set(MPTL_CUDA AUTO CACHE STRING "mptl: build for CUDA: ON, OFF, or AUTO (where there is a toolkit)")
set(MPTL_HAVE_CUDA OFF)
if(MPTL_CUDA AND NOT (MPTL_CUDA STREQUAL "AUTO" AND MPTL_SANITIZE)) # sanitizers do not check code on a GPU
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(MPTL_HAVE_CUDA ON)
  elseif(NOT MPTL_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "mptl: MPTL_CUDA is ${MPTL_CUDA}, but no CUDA compiler was found that works; set CMAKE_CUDA_COMPILER")
  endif()
endif()

if(MPTL_HAVE_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90) # 90 also as PTX, which drivers compile for newer GPUs
  endif()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.1) # kernel parameters of more than 4 KB
    if(NOT MPTL_CUDA STREQUAL "AUTO")
      message(FATAL_ERROR "mptl: CUDA is ${CMAKE_CUDA_COMPILER_VERSION}, the kernels need 12.1 or newer")
    endif()
    message(STATUS "mptl: CUDA is ${CMAKE_CUDA_COMPILER_VERSION}, 12.1 or newer is needed: nothing is built for NVIDIA GPUs")
    set(MPTL_HAVE_CUDA OFF)
  endif()
endif()
if(MPTL_HAVE_CUDA)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared) # one runtime for the libraries and the programs
  add_library(mptl_cuda_kernels STATIC ${cuda_sources})
  set_target_properties(mptl_cuda_kernels PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON)
  target_compile_options(mptl_cuda_kernels PRIVATE -fmad=false -Xcompiler=-Wall,-fvisibility=hidden
    $<$<BOOL:${MPTL_WERROR}>:-Werror=all-warnings>)
  target_include_directories(mptl_cuda_kernels PUBLIC ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/engine/include)
endif()

set(MPTL_HAVE_CUDA_SHIM OFF)
if(NOT BUILD_TESTING)
  return()
endif()
if(NOT CMAKE_CXX_COMPILER)
  unset(CMAKE_CXX_COMPILER CACHE) # look again: it may have been installed since
endif()
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  message(STATUS "mptl: no C++ compiler (./mptl test installs it): the specs of the CUDA kernels are not registered")
  return()
endif()
enable_language(CXX)
set(MPTL_HAVE_CUDA_SHIM ON)
add_library(mptl_cuda_shim_flags INTERFACE)
target_compile_features(mptl_cuda_shim_flags INTERFACE cxx_std_17)
target_compile_options(mptl_cuda_shim_flags INTERFACE -Wall -Wextra -Wshadow -Wno-unknown-pragmas -ffp-contract=off -fno-math-errno
  $<$<BOOL:${MPTL_WERROR}>:-Werror>)
target_include_directories(mptl_cuda_shim_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/engine
  ${CMAKE_SOURCE_DIR}/engine/include)
target_link_libraries(mptl_cuda_shim_flags INTERFACE Threads::Threads m)
if(MPTL_SANITIZE)
  target_compile_options(mptl_cuda_shim_flags INTERFACE -fsanitize=${MPTL_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(mptl_cuda_shim_flags INTERFACE -fsanitize=${MPTL_SANITIZE})
endif()
set(shim_sources kernels/cuda/shim.cpp)
foreach(source ${cuda_sources}) # wrappers, because a source file has one language in a build
  get_filename_component(name ${source} NAME)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/shim/${name}.cpp CONTENT "#include \"kernels/cuda/${name}\"\n")
  list(APPEND shim_sources ${CMAKE_BINARY_DIR}/shim/${name}.cpp)
endforeach()
add_library(mptl_cuda_kernels_host STATIC ${shim_sources})
target_link_libraries(mptl_cuda_kernels_host PUBLIC mptl_cuda_shim_flags)

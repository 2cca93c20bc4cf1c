# The CUDA plug-in: libmptl_cuda.so beside libmptl, if there are a CUDA toolkit, cuDNN, cuBLASLt and
# NVRTC. For tests, the same backend with the kernels compiled for the host: libmptl_cuda_host.so.
file(GLOB cuda_backend CONFIGURE_DEPENDS engine/backend/cuda/*.c)
list(FILTER cuda_backend EXCLUDE REGEX "/(device|check[^/]*|dnn[^/]*|blas[^/]*|types|channels|runtime|products)\\.c$")

if(TARGET mptl_cuda_kernels AND TARGET mptl_cuda_products)
  add_library(mptl_cuda MODULE ${cuda_backend} engine/backend/cuda/runtime.c engine/backend/cuda/products.c)
  target_link_libraries(mptl_cuda PRIVATE mptl_flags mptl mptl_cuda_kernels mptl_cuda_products CUDA::cudart)
  set_target_properties(mptl_cuda mptl_cuda_kernels PROPERTIES CUDA_RUNTIME_LIBRARY Shared)
  set_target_properties(mptl_cuda PROPERTIES BUILD_RPATH "${cuda_folders}" INSTALL_RPATH "$ORIGIN;${cuda_folders}")
  install(TARGETS mptl_cuda LIBRARY DESTINATION lib)
elseif(TARGET mptl_cuda_kernels)
  message(STATUS "mptl: a CUDA toolkit, but no cuDNN 9 with cuBLASLt and NVRTC: the plug-in for NVIDIA GPUs is not built")
endif()

if(TARGET mptl_cuda_kernels_host)
  add_library(mptl_cuda_host MODULE ${cuda_backend} engine/backend/cuda/types.c engine/backend/cuda/channels.c
    engine/backend/cuda/host/runtime.c engine/backend/cuda/host/products.c)
  target_compile_definitions(mptl_cuda_host PRIVATE MPTL_CUDA_HOST)
  target_link_libraries(mptl_cuda_host PRIVATE mptl_flags mptl mptl_cuda_kernels_host)
endif()

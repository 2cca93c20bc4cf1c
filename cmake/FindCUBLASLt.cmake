# cuBLASLt. Sets CUBLASLt::cublaslt. Looked for in $CUBLASLt_ROOT, beside CUDA's toolkit, among the system's libraries and in Python's
# packages: a toolkit may have come without it.
include(${CMAKE_CURRENT_LIST_DIR}/PythonNvidia.cmake)
mptl_python_nvidia(python_folders)
find_path(CUBLASLt_INCLUDE_DIR NAMES cublasLt.h HINTS ${CUBLASLt_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATHS ${python_folders}
  PATH_SUFFIXES include)
get_filename_component(CUBLASLt_FOLDER "${CUBLASLt_INCLUDE_DIR}" DIRECTORY) # the library beside the headers first: of one version
find_library(CUBLASLt_LIBRARY NAMES cublasLt libcublasLt.so.13 libcublasLt.so.12 NAMES_PER_DIR
  HINTS ${CUBLASLt_FOLDER} ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib64 lib)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUBLASLt REQUIRED_VARS CUBLASLt_LIBRARY CUBLASLt_INCLUDE_DIR)
if(CUBLASLt_FOUND AND NOT TARGET CUBLASLt::cublaslt)
  add_library(CUBLASLt::cublaslt UNKNOWN IMPORTED)
  set_target_properties(CUBLASLt::cublaslt PROPERTIES IMPORTED_LOCATION ${CUBLASLt_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${CUBLASLt_INCLUDE_DIR})
endif()
mark_as_advanced(CUBLASLt_INCLUDE_DIR CUBLASLt_LIBRARY)

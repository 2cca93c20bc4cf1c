# cuDNN 9, its graph API. Sets CUDNN::cudnn and CUDNN_VERSION. Looked for in $CUDNN_ROOT, beside CUDA's toolkit, among the system's
# libraries and in Python's packages.
include(${CMAKE_CURRENT_LIST_DIR}/PythonNvidia.cmake)
mptl_python_nvidia(python_folders)
find_path(CUDNN_INCLUDE_DIR NAMES cudnn_graph.h HINTS ${CUDNN_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATHS ${python_folders}
  PATH_SUFFIXES include)
get_filename_component(CUDNN_FOLDER "${CUDNN_INCLUDE_DIR}" DIRECTORY) # the library beside the headers first: of one version
find_library(CUDNN_LIBRARY NAMES cudnn_graph libcudnn_graph.so.9 NAMES_PER_DIR HINTS ${CUDNN_FOLDER} ${CUDAToolkit_LIBRARY_DIR}
  PATH_SUFFIXES lib64 lib)
if(CUDNN_INCLUDE_DIR AND EXISTS ${CUDNN_INCLUDE_DIR}/cudnn_version.h)
  foreach(header cudnn_version.h cudnn_version_v9.h)
    if(EXISTS ${CUDNN_INCLUDE_DIR}/${header})
      file(STRINGS ${CUDNN_INCLUDE_DIR}/${header} lines REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) ")
    endif()
    if(lines)
      break()
    endif()
  endforeach()
  string(REGEX REPLACE "[^0-9;]" "" CUDNN_VERSION "${lines}")
  string(REPLACE ";" "." CUDNN_VERSION "${CUDNN_VERSION}")
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR VERSION_VAR CUDNN_VERSION)
if(CUDNN_FOUND AND NOT TARGET CUDNN::cudnn)
  add_library(CUDNN::cudnn UNKNOWN IMPORTED)
  set_target_properties(CUDNN::cudnn PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
mark_as_advanced(CUDNN_INCLUDE_DIR CUDNN_LIBRARY)

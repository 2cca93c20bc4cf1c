# Finds libraries that have no CMake files of their own; the files cmake/FindNAME.cmake call it.
#
# mptl_find_library(NAME TARGET HEADER header LIBRARY name... [NVIDIA] [VERSION prefix header...])
# sets NAME_FOUND, NAME_INCLUDE_DIR, NAME_LIBRARY and NAME::TARGET. In a folder, the first library name that exists is taken.
# NVIDIA: searches $NAME_ROOT, the folder of the CUDA toolkit, the system's folders and Python's packages; without it only the
# system's folders. VERSION: sets NAME_VERSION from the first of the headers that defines prefixMAJOR and so on.
include(FindPackageHandleStandardArgs)
include(${CMAKE_CURRENT_LIST_DIR}/PythonNvidia.cmake)

function(mptl_find_library name target)
  cmake_parse_arguments(arg NVIDIA HEADER "LIBRARY;VERSION" ${ARGN})
  if(arg_NVIDIA)
    mptl_python_nvidia(python_folders)
    set(header_places HINTS ${${name}_ROOT} ${CUDAToolkit_INCLUDE_DIRS} PATHS ${python_folders} PATH_SUFFIXES include)
  endif()
  find_path(${name}_INCLUDE_DIR NAMES ${arg_HEADER} ${header_places})
  set(include_dir ${${name}_INCLUDE_DIR})
  if(arg_NVIDIA)
    get_filename_component(folder "${include_dir}" DIRECTORY) # first beside the headers: the same version
    set(library_places HINTS ${folder} ${CUDAToolkit_LIBRARY_DIR} PATHS ${python_folders} PATH_SUFFIXES lib64 lib)
  endif()
  find_library(${name}_LIBRARY NAMES ${arg_LIBRARY} NAMES_PER_DIR ${library_places})
  mark_as_advanced(${name}_INCLUDE_DIR ${name}_LIBRARY)

  set(version)
  list(POP_FRONT arg_VERSION prefix)
  foreach(header ${arg_VERSION})
    if(NOT version AND EXISTS ${include_dir}/${header})
      file(STRINGS ${include_dir}/${header} version REGEX "#define ${prefix}(MAJOR|MINOR|PATCH|PATCHLEVEL) ")
    endif()
  endforeach()
  if(version)
    string(REGEX REPLACE "[^0-9;]" "" version "${version}")
    string(REPLACE ";" "." ${name}_VERSION "${version}")
  endif()
  find_package_handle_standard_args(${name} REQUIRED_VARS ${name}_LIBRARY ${name}_INCLUDE_DIR VERSION_VAR ${name}_VERSION)
  set(${name}_FOUND ${${name}_FOUND} PARENT_SCOPE)
  set(${name}_VERSION ${${name}_VERSION} PARENT_SCOPE)
  if(${name}_FOUND AND NOT TARGET ${name}::${target})
    add_library(${name}::${target} UNKNOWN IMPORTED)
    set_target_properties(${name}::${target} PROPERTIES IMPORTED_LOCATION ${${name}_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${include_dir})
  endif()
endfunction()

# libedit, for line editing in the REPL; distributions name the package libedit-dev.
include(${CMAKE_CURRENT_LIST_DIR}/FindLibrary.cmake)
mptl_find_library(Editline Editline HEADER editline/readline.h LIBRARY edit)

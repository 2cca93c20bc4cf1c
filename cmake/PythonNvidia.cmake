# NVIDIA's Python packages (nvidia-cudnn-cu13, nvidia-cublas, ...), on which PyTorch depends, have their own folders for headers
# and libraries. mptl_python_nvidia(VARIABLE) sets a list of these folders, empty when there are none. It runs $PYTHON, or python3.
function(mptl_python_nvidia variable)
  set(python $ENV{PYTHON})
  if(NOT python)
    set(python python3)
  endif()
  execute_process(COMMAND ${python} -c
    "import glob, nvidia; print(';'.join(d for p in nvidia.__path__ for d in sorted(glob.glob(p + '/*')) if not d.endswith('__')))"
    OUTPUT_VARIABLE folders OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    set(folders)
  endif()
  set(${variable} ${folders} PARENT_SCOPE)
endfunction()

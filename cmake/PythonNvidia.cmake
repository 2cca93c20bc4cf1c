# NVIDIA's Python packages (nvidia-cudnn-cu13, nvidia-cublas, ...), which PyTorch brings along, have headers and libraries in folders of
# their own. mptl_python_nvidia(VARIABLE) sets a list of these folders, empty when there are none. It asks $PYTHON, else python3.
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

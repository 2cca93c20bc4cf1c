# Targets of libFuzzer, one for each reader: cmake --preset fuzz && cmake --build --preset fuzz. spec/fuzz/run runs
# them. They are linked to the readers and what these need, not to the whole library.
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "mptl: MPTL_FUZZ: the compiler is ${CMAKE_C_COMPILER_ID}, must be Clang: CC=clang, or the preset fuzz")
endif()
set(fuzz_flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1)
add_library(mptl_readers STATIC EXCLUDE_FROM_ALL
  engine/core/crc32c.c engine/core/file.c engine/core/json.c engine/core/lock.c engine/core/memory.c engine/core/status.c
  engine/data/cifar.c engine/data/dataset.c engine/data/images.c engine/data/images_packed.c engine/data/jpeg.c
  engine/data/packed.c engine/data/crop.c engine/data/safetensors.c)
target_link_libraries(mptl_readers PUBLIC mptl_flags TurboJPEG::turbojpeg JPEG::JPEG)
target_compile_options(mptl_readers PUBLIC ${fuzz_flags} PRIVATE -fsanitize=fuzzer-no-link)
add_custom_target(fuzz)
foreach(reader cifar jpeg packed safetensors)
  add_executable(fuzz_${reader} EXCLUDE_FROM_ALL spec/fuzz/${reader}.c)
  target_link_libraries(fuzz_${reader} PRIVATE mptl_readers)
  target_compile_options(fuzz_${reader} PRIVATE -fsanitize=fuzzer)
  target_link_options(fuzz_${reader} PRIVATE -fsanitize=fuzzer,address,undefined)
  add_dependencies(fuzz fuzz_${reader})
endforeach()
add_executable(fuzz_jpeg_seeds EXCLUDE_FROM_ALL spec/fuzz/jpeg_seeds.c)
target_link_libraries(fuzz_jpeg_seeds PRIVATE mptl_readers)
target_link_options(fuzz_jpeg_seeds PRIVATE -fsanitize=address,undefined)
add_dependencies(fuzz fuzz_jpeg_seeds)

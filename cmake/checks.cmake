# SPDX-License-Identifier: Apache-2.0
# What looks for faults: sanitizers, fuzz targets, and the programs that replay inputs or inject failures.
#
# SCN_FX_SANITIZE=address|thread|undefined|address,undefined instruments everything that is built.
# SCN_FX_COVERAGE=ON counts which lines run, for gcov; `make coverage` reads the counts.
# SCN_FX_FUZZ=ON builds the targets of tests/fuzz for libFuzzer, with ASan and UBSan; it needs Clang.
# SCN_FX_CHECKS=ON builds the programs of tests/core and tests/fuzz that any compiler builds.
set(SCN_FX_SANITIZE "" CACHE STRING "Sanitizers: address, thread, undefined or address,undefined")
option(SCN_FX_COVERAGE "Count the lines that run (needs GCC)" OFF)
option(SCN_FX_FUZZ "Build the libFuzzer targets of tests/fuzz (needs Clang)" OFF)
option(SCN_FX_CHECKS "Build the C++ test programs of tests" OFF)

if(SCN_FX_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "SCN_FX_FUZZ=ON needs Clang, which brings libFuzzer; the compiler is "
                        "${CMAKE_CXX_COMPILER}. Pass -DCMAKE_CXX_COMPILER=clang++.")
  endif()
  if(NOT SCN_FX_SANITIZE)
    set(SCN_FX_SANITIZE "address,undefined")
  endif()
  # Coverage in everything, libFuzzer's main in the targets alone. Comparisons are not traced, as
  # -fsanitize=fuzzer-no-link would: that takes half of the time, and the inputs have a structure anyway.
  add_compile_options(-fsanitize-coverage=inline-8bit-counters,pc-table)
endif()
if(SCN_FX_SANITIZE)
  if(NOT SCN_FX_SANITIZE MATCHES "^(address|thread|undefined|address,undefined)$")
    message(FATAL_ERROR "SCN_FX_SANITIZE must be address, thread, undefined or address,undefined, got "
                        "'${SCN_FX_SANITIZE}'.")
  endif()
  add_compile_options(-fsanitize=${SCN_FX_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${SCN_FX_SANITIZE})
  if(SCN_FX_SANITIZE MATCHES "undefined")
    # float-cast-overflow: NaN and large floats as integers, which "undefined" leaves out
    add_compile_options(-fsanitize=float-cast-overflow -fno-sanitize-recover=all)
  endif()
endif()
if(SCN_FX_COVERAGE)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    message(FATAL_ERROR "SCN_FX_COVERAGE=ON needs GCC, whose gcov reads the counts; the compiler is "
                        "${CMAKE_CXX_COMPILER}. Pass -DCMAKE_CXX_COMPILER=g++.")
  endif()
  # Atomic: gcov infers some counts as differences of others, which lost updates would make negative.
  add_compile_options(--coverage -fprofile-update=atomic)
  add_link_options(--coverage)
endif()

# After the library scn_engine.
function(scn_fx_checks)
  if(SCN_FX_COVERAGE)
    # After the library's own -O3, which moves and merges the lines; programs that link it need gcov's library.
    target_compile_options(scn_engine PRIVATE -O1)
    target_link_options(scn_engine INTERFACE --coverage)
  endif()
  if(NOT SCN_FX_FUZZ AND NOT SCN_FX_CHECKS)
    return()
  endif()
  set(tests ${CMAKE_CURRENT_SOURCE_DIR}/tests)
  file(GLOB support CONFIGURE_DEPENDS ${tests}/fuzz/support/*.cpp)
  add_library(fuzz_support STATIC ${support} ${tests}/fuzz/onnx_mutator.cpp)
  target_include_directories(fuzz_support PUBLIC ${tests}/fuzz ${tests}/fuzz/support ${CMAKE_CURRENT_SOURCE_DIR}/scn_fx/csrc)
  target_link_libraries(fuzz_support PUBLIC scn_engine)
  target_compile_options(fuzz_support PUBLIC $<IF:$<BOOL:${SCN_FX_FUZZ}>,-O2,-O1> -Wall -Wextra)
  file(GLOB targets CONFIGURE_DEPENDS ${tests}/fuzz/fuzz_*.cpp)
  foreach(source ${targets})
    get_filename_component(name ${source} NAME_WE)
    if(SCN_FX_FUZZ)
      add_executable(${name} ${source})
      target_link_libraries(${name} PRIVATE fuzz_support)
      # nothing but the C library is looked for where it runs
      target_link_options(${name} PRIVATE -fsanitize=fuzzer -static-libstdc++ -static-libgcc)
    endif()
    if(SCN_FX_CHECKS)
      string(REPLACE "fuzz_" "replay_" replay ${name})
      add_executable(${replay} ${source} ${tests}/fuzz/replay.cpp)
      target_link_libraries(${replay} PRIVATE fuzz_support)
    endif()
  endforeach()
  if(SCN_FX_CHECKS)
    foreach(name allocations allocation_failures flat_rows many_threads half_bits points)
      add_executable(${name} ${tests}/core/${name}.cpp)
      target_link_libraries(${name} PRIVATE fuzz_support)
    endforeach()
  endif()
endfunction()

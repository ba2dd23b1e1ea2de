# Every tests/<folder>/test_<name>.c is a cmocka program of its own and a CTest test "<name>".
# They run in the repository root, so that they can read tests/golden.
enable_testing()

# Every tests/fuzz/fuzz_<name>.c defines LLVMFuzzerTestOneInput. Configured with MMAMBA_FUZZ it is a
# libFuzzer program, and nothing else is built; otherwise it replays its corpus as a CTest test.
file(GLOB MMAMBA_FUZZERS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
add_custom_target(fuzz_targets)
foreach(source ${MMAMBA_FUZZERS})
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE "fuzz_" "" short ${name})
  if(MMAMBA_FUZZ)
    add_executable(${name} EXCLUDE_FROM_ALL ${source})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzz_targets ${name})
  else()
    add_executable(${name} ${source} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.c)
    add_test(NAME ${name}_corpus COMMAND ${name} tests/fuzz/corpus/${short}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  endif()
  target_link_libraries(${name} PRIVATE mmamba_lib)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endforeach()
if(MMAMBA_FUZZ)
  return()
endif()

# Labels of a test: its folder, and "threads" when it starts some, which `make tsan` asks for. Not the
# conversation on a terminal: the sanitizer holds back the signals that are to interrupt a read.
function(label_test source short)
  get_filename_component(folder ${source} DIRECTORY)
  get_filename_component(folder ${folder} NAME)
  set(labels ${folder})
  if((folder MATCHES "^(infer|model|ops|train)$" AND NOT short STREQUAL "chat_verb")
     OR short MATCHES "^(threads|team|run|scenes|cli_models)$")
    list(APPEND labels threads)
  endif()
  set_tests_properties(${short} PROPERTIES LABELS "${labels}")
endfunction()

pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
file(GLOB MMAMBA_TESTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/*/test_*.c)
foreach(source ${MMAMBA_TESTS})
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE "test_" "" short ${name})
  add_executable(${name} ${source})
  target_include_directories(${name} PRIVATE tests)
  target_link_libraries(${name} PRIVATE mmamba_lib PkgConfig::CMOCKA)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${short} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  label_test(${source} ${short})
endforeach()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  # gcc 12 for AArch64 fails with an internal error when it vectorises a sum of this test.
  set_property(SOURCE ${CMAKE_SOURCE_DIR}/tests/bench/test_bench_models.c
    APPEND PROPERTY COMPILE_OPTIONS -fno-tree-vectorize)
endif()

# The GPU plug-in on a device made of host memory, beside the program in stand_in/: its host side is
# tested where there is no GPU. It is C++, as the plug-in's files are to a host's compiler.
include(CheckLanguage)
check_language(CXX)
if(CMAKE_CXX_COMPILER AND NOT CMAKE_CROSSCOMPILING AND TARGET mmamba)
  enable_language(CXX)
  set(stand_in ${CMAKE_BINARY_DIR}/stand_in)
  foreach(part memory fault)
    file(CONFIGURE OUTPUT ${stand_in}/${part}.cc CONTENT "#include \"ops/cuda/${part}.cu\"\n")
  endforeach()
  add_library(stand_in MODULE tests/gpu/stand_in/stand_in.cc ${stand_in}/memory.cc
    ${stand_in}/fault.cc)
  set_target_properties(stand_in PROPERTIES OUTPUT_NAME mmamba_cuda CXX_STANDARD 17
    CXX_VISIBILITY_PRESET hidden LIBRARY_OUTPUT_DIRECTORY ${stand_in})
  target_include_directories(stand_in PRIVATE tests/gpu/stand_in src)
  target_link_libraries(stand_in PRIVATE mmamba_lib)
  target_link_options(stand_in PRIVATE -Wl,-Bsymbolic)
  foreach(file mmamba scenes tests bench)
    file(CREATE_LINK ${CMAKE_BINARY_DIR}/${file} ${stand_in}/${file} SYMBOLIC)
  endforeach()
endif()

add_executable(json_check tests/cli/json_check.c)
target_link_libraries(json_check PRIVATE PkgConfig::JANSSON)
add_executable(json_rows tests/cli/json_rows.c)
target_link_libraries(json_rows PRIVATE PkgConfig::JANSSON)
add_executable(st_tool tests/cli/st_tool.c)
target_link_libraries(st_tool PRIVATE mmamba_lib)
set_target_properties(json_check json_rows st_tool PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# Every tests/<folder>/test_<name>.sh is a CTest test too; it gets the program and the build folder.
# Cross-compiled programs are put behind scripts that start the emulator.
set(MMAMBA_RUN ${CMAKE_BINARY_DIR})
if(CMAKE_CROSSCOMPILING)
  set(MMAMBA_RUN ${CMAKE_BINARY_DIR}/emulated)
  list(JOIN CMAKE_CROSSCOMPILING_EMULATOR " " emulator)
  foreach(program mmamba tests/st_tool tests/json_check)
    file(CONFIGURE OUTPUT ${MMAMBA_RUN}/${program} @ONLY
      CONTENT "#!/bin/sh\nexec @emulator@ @CMAKE_BINARY_DIR@/@program@ \"$@\"\n")
    file(CHMOD ${MMAMBA_RUN}/${program} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
  endforeach()
endif()
file(GLOB MMAMBA_SCRIPT_TESTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/*/test_*.sh)
foreach(source ${MMAMBA_SCRIPT_TESTS})
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE "test_" "" short ${name})
  if(short STREQUAL "install" AND NOT TARGET mmamba_shared)
    continue()
  endif()
  add_test(NAME ${short} COMMAND ${source} ${MMAMBA_RUN}/mmamba ${MMAMBA_RUN}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  label_test(${source} ${short})
endforeach()

if(TEST stand_in)
  set_tests_properties(stand_in PROPERTIES SKIP_RETURN_CODE 77)
endif()

# The pool and the team once more under ThreadSanitizer, which cannot be combined with the others.
if(NOT MMAMBA_ASAN AND NOT MMAMBA_TSAN)
  foreach(name threads team)
    add_executable(${name}_tsan tests/base/test_${name}.c src/base/threads.c src/base/team.c
      src/base/cgroup.c src/base/status.c src/base/wait.c)
    target_include_directories(${name}_tsan PRIVATE tests src)
    target_compile_options(${name}_tsan PRIVATE -fsanitize=thread -O1)
    target_link_options(${name}_tsan PRIVATE -fsanitize=thread)
    target_link_libraries(${name}_tsan PRIVATE PkgConfig::CMOCKA Threads::Threads)
    set_target_properties(${name}_tsan PROPERTIES RUNTIME_OUTPUT_DIRECTORY
      ${CMAKE_BINARY_DIR}/tests)
    add_test(NAME ${name}_tsan COMMAND tests/base/tsan.sh $<TARGET_FILE:${name}_tsan>
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name}_tsan PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
endif()

# Emulated processors take 10 to 50 times as long. Left out there: whole training runs, made worlds
# and many starts of the program, some of which have a clock of their own; what compiles for the
# machine that runs it; ThreadSanitizer, which does not run under qemu-user; and what counts the
# process's memory, of which the emulator's own is a part there.
if(CMAKE_CROSSCOMPILING)
  foreach(test demo run_memory run_parts run_resume cli_models eval_killed bad_input scenes install
      threads_tsan team_tsan load_memory score_memory soak bundled
      cli_quantize)
    if(TEST ${test})
      set_property(TEST ${test} APPEND PROPERTY LABELS slow_emulated)
    endif()
  endforeach()
  set_property(TEST chat_verb PROPERTY ENVIRONMENT MMAMBA_PROGRAM=${MMAMBA_RUN}/mmamba)
endif()

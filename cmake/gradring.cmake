# Helpers for the parts under csrc/.
find_package(Threads REQUIRED)

add_library(gradring_options INTERFACE)
target_include_directories(gradring_options INTERFACE ${CMAKE_SOURCE_DIR}/csrc ${CMAKE_SOURCE_DIR}/csrc/include)
target_compile_options(gradring_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall$<SEMICOLON>-Wextra$<SEMICOLON>-Wshadow$<SEMICOLON>-fno-math-errno$<SEMICOLON>-fno-trapping-math>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # False alarms on std::string's operator+ (GCC bug 105651).
  target_compile_options(gradring_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Exceptions need tables for unwinding, but not those of functions that let none pass. GCC leaves these out only if it writes the
  # tables itself, and not if the assembler does.
  target_compile_options(gradring_options INTERFACE
    $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-fno-asynchronous-unwind-tables$<SEMICOLON>-fno-dwarf2-cfi-asm>)
endif()
target_link_libraries(gradring_options INTERFACE Threads::Threads)
if(GRADRING_ONE_ISA)
  target_compile_definitions(gradring_options INTERFACE GRADRING_ONE_ISA)
endif()
if(GRADRING_WERROR)
  target_compile_options(gradring_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
# -g1: the reports of sanitizers need lines, not variables.
if(GRADRING_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=address,undefined)
elseif(GRADRING_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -g1)
  add_link_options(-fsanitize=thread)
elseif(GRADRING_SANITIZE)
  message(FATAL_ERROR "GRADRING_SANITIZE is '${GRADRING_SANITIZE}': expected address or thread")
endif()

# gradring_precompile(target headers...): parses these headers once for all sources of a target.
function(gradring_precompile target)
  if(GRADRING_PRECOMPILE)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
endfunction()

# gradring_fold(target): equal functions become one, where GCC has a linker that finds them.
include(CheckLinkerFlag)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  check_linker_flag(CXX "-fuse-ld=gold;LINKER:--icf=safe" GRADRING_LINKER_FOLDS)
endif()
function(gradring_fold target)
  if(GRADRING_LINKER_FOLDS)
    target_link_options(${target} PRIVATE "$<$<CONFIG:Release>:-fuse-ld=gold;LINKER:--icf=safe>")
  endif()
endfunction()

# gradring_order_functions(target objects...): for a wheel, lays out functions that resemble each other side by side, so that the wheel
# compresses them better.
function(gradring_order_functions target)
  if(NOT ("${SKBUILD_STATE}" STREQUAL "wheel" AND GRADRING_LINKER_FOLDS AND CMAKE_BUILD_TYPE STREQUAL "Release"))
    return()
  endif()
  find_package(Python REQUIRED COMPONENTS Interpreter)
  set(script ${CMAKE_SOURCE_DIR}/scripts/backend/order_functions.py)
  set(order ${CMAKE_CURRENT_BINARY_DIR}/${target}.order)
  add_custom_command(OUTPUT ${order} COMMAND ${Python_EXECUTABLE} ${script} ${order} ${ARGN} DEPENDS ${script} ${ARGN}
                     COMMAND_EXPAND_LISTS VERBATIM)
  target_sources(${target} PRIVATE ${order})
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${order})
  target_link_options(${target} PRIVATE LINKER:--sort-section=none LINKER:--section-ordering-file=${order})
endfunction()

# gradring_part(name sources...): an object library that goes into libgradring.so. Loops over data are in the sources of
# gradring_isa_sources; for everything else -O3 makes larger code that is no faster.
function(gradring_part name)
  add_library(gradring_${name} OBJECT ${ARGN})
  target_compile_options(gradring_${name} PRIVATE $<$<CONFIG:Release>:-O2>)
  target_link_libraries(gradring_${name} PRIVATE gradring_options)
  if(name MATCHES "^(ops|program)$")
    gradring_precompile(gradring_${name} <memory> <string> <vector> ${CMAKE_SOURCE_DIR}/csrc/ops/op.h)
  else()
    gradring_precompile(gradring_${name} <algorithm> <memory> <string> <vector> ${CMAKE_SOURCE_DIR}/csrc/runtime/status.h)
  endif()
  set_property(GLOBAL APPEND PROPERTY GRADRING_PARTS gradring_${name})
endfunction()

# gradring_cold(sources...): sources that run once per model, loader or group, or for an error. -Os makes smaller code of them.
function(gradring_cold)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_PRECOMPILE_HEADERS ON COMPILE_OPTIONS $<$<CONFIG:Release>:-Os>)
endfunction()

# gradring_kernel_flags(regex condition flags sources...): flags of a release for those sources whose names match.
function(gradring_kernel_flags regex condition flags)
  list(FILTER ARGN INCLUDE REGEX "${regex}")
  # GCC takes the level of optimization from a precompiled header, and not from the command line.
  set_source_files_properties(${ARGN} PROPERTIES SKIP_PRECOMPILE_HEADERS ON
    COMPILE_OPTIONS "$<$<AND:$<CONFIG:Release>,${condition}>:${flags}>")
endfunction()

# gradring_isa_sources(part sources...): compiles each source once per ISA level.
function(gradring_isa_sources part)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT GRADRING_ONE_ISA)
    set(levels base avx2 avx512)
    # Nearly all processors have AVX2. For the others the code is small.
    set(flags_base $<$<CONFIG:Release>:-Os>)
    set(at_base $<STREQUAL:$<TARGET_PROPERTY:GRADRING_LEVEL>,base>)
    # The tiles in software are for tests.
    gradring_kernel_flags("/tiles_emulated" "$<NOT:${at_base}>" -Os ${ARGN})
    # The micro-kernels of products say what to unroll. At -O3 GCC copies loops, for code that is larger and no faster.
    gradring_kernel_flags("^(bf16_)?matmul/|/pieces_cpu|_tiles_cpu" "$<NOT:${at_base}>" -O2 ${ARGN})
    # Many branches that depend on no element: at -O3 GCC copies a loop for each, for code that is larger and hardly faster.
    set(loops $<$<AND:$<CXX_COMPILER_ID:GNU>,$<NOT:${at_base}>>:-ftree-vectorize;-fvect-cost-model=dynamic;-fpeel-loops>)
    gradring_kernel_flags("^(combine|cross_entropy|pointwise_loss)/" "$<NOT:${at_base}>" "-O2;${loops}" ${ARGN})
  else()
    set(levels base)
  endif()
  set(bytes_base 16)
  set(bytes_avx2 32)
  set(bytes_avx512 64)
  set(flags_avx2 -mavx2 -mfma)
  set(flags_avx512 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mavx2 -mfma -mprefer-vector-width=512)
  foreach(level IN LISTS levels)
    add_library(gradring_${part}_${level} OBJECT ${ARGN})
    set_target_properties(gradring_${part}_${level} PROPERTIES GRADRING_LEVEL ${level})
    target_link_libraries(gradring_${part}_${level} PRIVATE gradring_options)
    target_compile_definitions(gradring_${part}_${level} PRIVATE GRADRING_ISA_NAMESPACE=isa_${level}
                                                             GRADRING_VECTOR_BYTES=${bytes_${level}})
    # Kernels throw nothing and call nothing that does, so they need no tables for unwinding the stack.
    target_compile_options(gradring_${part}_${level} PRIVATE ${flags_${level}} -Wno-psabi
      $<$<CONFIG:Release>:-fno-exceptions> $<$<CONFIG:Release>:-fno-asynchronous-unwind-tables>
      $<$<CONFIG:Release>:-fno-unwind-tables>)
    if(GRADRING_SANITIZE STREQUAL "address" AND level MATCHES "base|avx512" AND "avx2" IN_LIST levels)
      # The levels have nearly all their code in common, and to compile checks for undefined behavior takes most of the time.
      target_compile_options(gradring_${part}_${level} PRIVATE -fno-sanitize=undefined)
    endif()
    if(part STREQUAL "ops")
      gradring_precompile(gradring_ops_${level} <cwchar> <type_traits> <utility> ${CMAKE_SOURCE_DIR}/csrc/ops/dispatch.h
                          ${CMAKE_SOURCE_DIR}/csrc/ops/simd.h)
    endif()
    set_property(GLOBAL APPEND PROPERTY GRADRING_PARTS gradring_${part}_${level})
  endforeach()
endfunction()

# gradring_test(name [CALM] sources...): a doctest executable linked against the parts' objects, hidden symbols included.
# CALM: it waits for threads and processes, so that ctest runs nothing beside it.
function(gradring_test name)
  if(NOT GRADRING_TESTS)
    return()
  endif()
  cmake_parse_arguments(test "CALM" "" "" ${ARGN})
  if(NOT TARGET gradring_test_main)
    add_library(gradring_test_main OBJECT ${CMAKE_SOURCE_DIR}/tests/cpp/main.cc)
    target_link_libraries(gradring_test_main PRIVATE gradring_options)
  endif()
  add_executable(${name} ${test_UNPARSED_ARGUMENTS})
  get_property(parts GLOBAL PROPERTY GRADRING_PARTS)
  target_link_libraries(${name} PRIVATE gradring_options gradring_test_main ${parts})
  gradring_precompile(${name} <memory> <string> <vector> <doctest/doctest.h>)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES RUN_SERIAL "${test_CALM}")
endfunction()

# gradring_op(folder [TESTS executable]): a folder of csrc/ops. Its *_cpu.cc files are compiled once per ISA level, its
# op.cc enters the registry, its *_test.cc files go into a test executable (ops_tests), its other sources into the part.
# Files with "testing" in their names are compiled for tests alone.
function(gradring_op folder)
  cmake_parse_arguments(op "" "TESTS" "" ${ARGN})
  if(NOT op_TESTS)
    set(op_TESTS ops_tests)
  endif()
  file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${folder}/*.cc)
  foreach(source IN LISTS sources)
    if(source MATCHES "_testing_" AND NOT GRADRING_TESTS)
      continue()
    elseif(source MATCHES "_cpu\\.cc$")
      set_property(GLOBAL APPEND PROPERTY GRADRING_OP_KERNELS ${source})
    elseif(source MATCHES "_test\\.cc$")
      set_property(GLOBAL APPEND PROPERTY GRADRING_OP_TESTS ${op_TESTS})
      set_property(GLOBAL APPEND PROPERTY GRADRING_OP_TESTS_${op_TESTS} ${source})
    else()
      set_property(GLOBAL APPEND PROPERTY GRADRING_OP_SOURCES ${source})
    endif()
    if(source MATCHES "/op\\.cc$")
      set_property(GLOBAL APPEND PROPERTY GRADRING_OP_NAMES ${folder})
    endif()
  endforeach()
endfunction()

# gradring_ops(sources...): after all gradring_op lines, the part `ops` with the generated registry, and its tests. Of these
# sources, *_test.cc go into ops_tests.
function(gradring_ops)
  set(tests ${ARGN})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER ARGN EXCLUDE REGEX "_test\\.cc$")
  set_property(GLOBAL APPEND PROPERTY GRADRING_OP_TESTS_ops_tests ${tests})
  get_property(names GLOBAL PROPERTY GRADRING_OP_NAMES)
  foreach(name IN LISTS names)
    string(APPEND GRADRING_REGISTRY_DECLARATIONS
           "extern const OpSchema ${name}_ops[];\nextern const size_t ${name}_op_count;\n")
    string(APPEND GRADRING_REGISTRY_ENTRIES "    add(${name}_ops, ${name}_op_count);\n")
  endforeach()
  configure_file(registry.cc.in ${CMAKE_CURRENT_BINARY_DIR}/registry.cc @ONLY)
  get_property(kernels GLOBAL PROPERTY GRADRING_OP_KERNELS)
  get_property(sources GLOBAL PROPERTY GRADRING_OP_SOURCES)
  # Of templates that several files instantiate, the linker takes the first: of those of products, the fast one.
  set(products ${kernels})
  list(FILTER products INCLUDE REGEX "^matmul/")
  list(FILTER kernels EXCLUDE REGEX "^matmul/")
  list(PREPEND kernels ${products})
  gradring_isa_sources(ops ${kernels})
  gradring_part(ops ${sources} ${ARGN} ${CMAKE_CURRENT_BINARY_DIR}/registry.cc)
  # Schemas, checks, and what prepares a kernel's arguments. A step of a small network spends a tenth of its time there, most of it for
  # the products and updates, which are not among them. An eager product of 4x32x10 spends an eighth of its time there.
  set(cold ${sources} ${ARGN})
  list(FILTER cold INCLUDE REGEX "(^|/)op\\.cc$|^cast/any_cast|^loss/call|^cuda_kernels|^(reduce|shared)_update/|^tiles/tiles\\.cc$")
  list(FILTER cold EXCLUDE REGEX "^(linear|linear_update|matmul|sgd)/")
  gradring_cold(${cold})
  get_property(tests GLOBAL PROPERTY GRADRING_OP_TESTS)
  list(REMOVE_DUPLICATES tests)
  foreach(test IN LISTS tests)
    get_property(test_sources GLOBAL PROPERTY GRADRING_OP_TESTS_${test})
    gradring_test(${test} ${test_sources})
  endforeach()
endfunction()

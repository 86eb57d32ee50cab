# GRADRING_CUDA: OFF, ON (nvcc) or SOFTWARE (tests alone: the same sources on a device made of software, with g++).
# Unset, an environment variable of that name decides; without one, ON if CUDACXX or CUDA_HOME is set, else OFF: a stray nvcc does
# not lengthen `pip install .`.
if(NOT DEFINED GRADRING_CUDA OR GRADRING_CUDA STREQUAL "")
  if(NOT "$ENV{GRADRING_CUDA}" STREQUAL "")
    set(cuda_default "$ENV{GRADRING_CUDA}")
  elseif(NOT "$ENV{CUDACXX}" STREQUAL "" OR NOT "$ENV{CUDA_HOME}" STREQUAL "")
    set(cuda_default ON)
  else()
    set(cuda_default OFF)
  endif()
  set(GRADRING_CUDA "${cuda_default}" CACHE STRING "OFF, ON or SOFTWARE" FORCE)
endif()
string(TOUPPER "${GRADRING_CUDA}" GRADRING_CUDA)
if(NOT GRADRING_CUDA MATCHES "^(OFF|ON|SOFTWARE)$")
  message(FATAL_ERROR "GRADRING_CUDA is '${GRADRING_CUDA}': expected OFF, ON or SOFTWARE")
endif()
if(GRADRING_CUDA STREQUAL "SOFTWARE" AND "${SKBUILD_STATE}" MATCHES "^(wheel|sdist)$")
  message(FATAL_ERROR "GRADRING_CUDA=SOFTWARE is for tests and never goes into a wheel: install with --editable, or use OFF or ON")
endif()

# The folder of NVIDIA's packages in the Python that builds, if any.
function(gradring_nvidia_wheels result)
  find_package(Python QUIET COMPONENTS Interpreter)
  set(found "")
  if(Python_EXECUTABLE)
    execute_process(COMMAND ${Python_EXECUTABLE} -c "import nvidia.cu13 as m; print(list(m.__path__)[0])"
                    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

# nvcc: CUDACXX, CUDA_HOME, PATH, NVIDIA's wheels.
function(gradring_find_nvcc)
  set(nvcc "")
  if(CMAKE_CUDA_COMPILER)
    set(nvcc "${CMAKE_CUDA_COMPILER}")
  elseif(NOT "$ENV{CUDACXX}" STREQUAL "")
    find_program(cudacxx NAMES "$ENV{CUDACXX}" NO_CACHE)
    set(nvcc "${cudacxx}")
    if(NOT nvcc)
      message(FATAL_ERROR "CUDACXX is '$ENV{CUDACXX}': there is no such compiler")
    endif()
  elseif(EXISTS "$ENV{CUDA_HOME}/bin/nvcc")
    set(nvcc "$ENV{CUDA_HOME}/bin/nvcc")
  else()
    gradring_nvidia_wheels(wheels)
    # In PATH alone: by itself, CMake would look into /usr/local/bin, too.
    find_program(found_nvcc NAMES nvcc NO_CACHE NO_CMAKE_SYSTEM_PATH)
    if(NOT found_nvcc AND wheels)
      find_program(found_nvcc NAMES nvcc NO_CACHE HINTS "${wheels}/bin" NO_DEFAULT_PATH)
    endif()
    set(nvcc "${found_nvcc}")
  endif()
  if(NOT nvcc OR nvcc MATCHES "NOTFOUND")
    set(nvcc "")
  endif()
  set(GRADRING_NVCC "${nvcc}" PARENT_SCOPE)
endfunction()

if(GRADRING_CUDA STREQUAL "ON")
  gradring_find_nvcc()
  if(NOT GRADRING_NVCC)
    message(FATAL_ERROR "GRADRING_CUDA=ON, but there is no nvcc in CUDACXX, CUDA_HOME, PATH or NVIDIA's wheels.\n"
                        "For the wheels: pip install 'gradring[cuda-build]'")
  endif()
  set(CMAKE_CUDA_COMPILER "${GRADRING_NVCC}")
  # The wheels keep their libraries in lib/, which nvcc's profile does not search.
  get_filename_component(nvcc_real "${GRADRING_NVCC}" REALPATH)
  get_filename_component(nvcc_root "${nvcc_real}" DIRECTORY)
  get_filename_component(nvcc_root "${nvcc_root}" DIRECTORY)
  if(EXISTS "${nvcc_root}/lib/libcudart_static.a")
    set(ENV{LIBRARY_PATH} "${nvcc_root}/lib:$ENV{LIBRARY_PATH}")
  endif()
  # sm_80 and sm_90 as machine code, and PTX for what comes after.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  enable_language(CUDA)
  set(GRADRING_CUDA_INCLUDE "${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}")
elseif(GRADRING_CUDA STREQUAL "SOFTWARE")
  # NVIDIA's headers alone: the runtime's prototypes and the 16-bit types.
  if(NOT GRADRING_CUDA_INCLUDE)
    gradring_find_nvcc()
    gradring_nvidia_wheels(wheels)
    get_filename_component(nvcc_real "${GRADRING_NVCC}" REALPATH)
    get_filename_component(nvcc_bin "${nvcc_real}" DIRECTORY)
    find_path(cuda_headers cuda_runtime_api.h NO_CACHE
              HINTS "${nvcc_bin}/../include" "$ENV{CUDA_HOME}/include" "${wheels}/include" /usr/local/cuda/include)
    if(NOT cuda_headers)
      message(FATAL_ERROR "GRADRING_CUDA=SOFTWARE needs NVIDIA's headers: pip install nvidia-cuda-runtime==13.0.96 "
                          "nvidia-cuda-crt==13.0.88, or set GRADRING_CUDA_INCLUDE")
    endif()
    get_filename_component(GRADRING_CUDA_INCLUDE "${cuda_headers}" REALPATH)
  endif()
endif()

# gradring_cuda_sources(target files.cu...): adds device code; with g++, as C++.
function(gradring_cuda_sources target)
  target_sources(${target} PRIVATE ${ARGN})
  target_include_directories(${target} SYSTEM PRIVATE ${GRADRING_CUDA_INCLUDE})
  if(GRADRING_CUDA STREQUAL "SOFTWARE")
    set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
    target_compile_definitions(${target} PRIVATE GRADRING_SOFTWARE_DEVICE)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-psabi>)
  else()
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xcompiler=-fvisibility=hidden>)
  endif()
endfunction()

# gradring_cuda_test_entries(name files...): gives each file of the program's tests an entry of its own in ctest. So the
# files run beside each other, and the limit of time holds for each of them: ThreadSanitizer needs minutes for some.
function(gradring_cuda_test_entries name)
  foreach(source IN LISTS ARGN)
    get_filename_component(file ${source} NAME)
    if(file MATCHES "^(.+)_test\\.(cc|cu)$")
      set(entry ${name}.${CMAKE_MATCH_1})
      add_test(NAME ${entry} COMMAND ${name} --source-file=*/${file})
      if(GRADRING_CUDA STREQUAL "SOFTWARE")  # on a card, some files have no case
        set_tests_properties(${entry} PROPERTIES FAIL_REGULAR_EXPRESSION "test cases: +0 ")
      endif()
    endif()
  endforeach()
endfunction()

# gradring_cuda_test(name files.cu...): a program of tests, which runs on the software device or a card. It links all parts that
# were declared so far.
function(gradring_cuda_test name)
  add_executable(${name} ${CMAKE_SOURCE_DIR}/tests/cpp/main.cc)
  if(GRADRING_CUDA STREQUAL "SOFTWARE")
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/csrc/cuda/software/tests/apart.cc)
  endif()
  gradring_cuda_sources(${name} ${ARGN})
  get_property(parts GLOBAL PROPERTY GRADRING_PARTS)
  target_link_libraries(${name} PRIVATE gradring_options gradring_cuda ${parts} ${CMAKE_DL_LIBS})
  gradring_cuda_test_entries(${name} ${ARGN})
endfunction()

# gradring_cuda_ops(folders...): <folder>/<folder>_cuda.cu of csrc/ops go into _cuda, with a generated function that registers
# them all; their tests go into cuda_ops_tests, and their measurements into cuda_ops_bench. Both run on the software device or a
# card.
function(gradring_cuda_ops)
  foreach(name IN LISTS ARGN)
    list(APPEND sources ${CMAKE_CURRENT_SOURCE_DIR}/${name}/${name}_cuda.cu)
    string(APPEND GRADRING_CUDA_DECLARATIONS
           "extern const CudaKernel ${name}_cuda_kernels[];\nextern const size_t ${name}_cuda_kernel_count;\n")
    string(APPEND GRADRING_CUDA_ENTRIES
           "  register_cuda_kernels({${name}_cuda_kernels, ${name}_cuda_kernel_count});\n")
  endforeach()
  configure_file(cuda_registry.cc.in ${CMAKE_CURRENT_BINARY_DIR}/cuda_registry.cc @ONLY)
  gradring_cuda_sources(gradring_cuda ${sources})
  target_sources(gradring_cuda PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/cuda_registry.cc)
  if(GRADRING_TESTS)
    file(GLOB tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda_tests/*.cu)
    gradring_cuda_test(cuda_ops_tests ${tests})
    add_executable(cuda_ops_bench EXCLUDE_FROM_ALL)
    gradring_cuda_sources(cuda_ops_bench ${CMAKE_CURRENT_SOURCE_DIR}/cuda_bench/cuda_bench.cu)
    get_property(parts GLOBAL PROPERTY GRADRING_PARTS)  # so far: those that ops may know
    target_link_libraries(cuda_ops_bench PRIVATE gradring_options gradring_cuda ${parts} ${CMAKE_DL_LIBS})
  endif()
endfunction()

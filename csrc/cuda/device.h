// The one include of device code (*.cu): with nvcc CUDA's language, with g++ its software form (GRADRING_SOFTWARE_DEVICE).
//
//   LAUNCH(kernel, blocks, threads, dynamic shared bytes, stream, arguments...)   queues a kernel, returns a cudaError_t
//   SHARED_ARRAY(Type, name, count)    shared memory of the block, of constant size
//   DYNAMIC_SHARED(Type, name)         the shared memory whose size the launch gave; 16-byte aligned
//   device_memory.h                    16-byte vectors, storage types
//   device_atomic.h                    atomics that name their order
//   device_reduce.h                    sums over a warp and a block in a fixed order
//   device_elements.h                  loops over arrays: head and tail by alignment, independent loads first
//   device_rows.h                      rows of a matrix, by warps or blocks; sums over rows
//
// Device code has no <<<>>>, no bare fences, and inline PTX only inside a function that also has a plain C++ form.
#pragma once

// After this header, ops/simd.h gives its scalar form, in which the formulas for both CPUs and GPUs compile.
#define GRADRING_DEVICE_CODE

#include "cuda/failure.h"

#ifdef GRADRING_SOFTWARE_DEVICE
#include "cuda/software/simt.h"

#define SHARED_ARRAY(Type, name, count)         \
  static constexpr char name##_shared_key_ = 0; \
  Type* const name = static_cast<Type*>(        \
      ::gradring::software::shared_memory(&name##_shared_key_, sizeof(Type) * static_cast<size_t>(count), #name))
#define DYNAMIC_SHARED(Type, name) Type* const name = static_cast<Type*>(::gradring::software::dynamic_shared_memory())
#define LAUNCH(kernel, ...) \
  ::gradring::cuda::noted("cudaLaunchKernel", ::gradring::software::launch_kernel(#kernel, kernel, __VA_ARGS__))
#define GRADRING_UNROLL _Pragma("GCC unroll 8")

#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace gradring::device {

template <class... P, class... A>
cudaError_t launch_kernel(void (*kernel)(P...), dim3 blocks, dim3 threads, size_t dynamic_shared, cudaStream_t stream,
                          A&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.dynamicSmemBytes = dynamic_shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...);
}

}  // namespace gradring::device

#define SHARED_ARRAY(Type, name, count) __shared__ Type name[count]
#define DYNAMIC_SHARED(Type, name)                                        \
  extern __shared__ __align__(16) unsigned char name##_dynamic_shared_[]; \
  Type* const name = reinterpret_cast<Type*>(name##_dynamic_shared_)
#define LAUNCH(kernel, ...) \
  ::gradring::cuda::noted("cudaLaunchKernel", ::gradring::device::launch_kernel(kernel, __VA_ARGS__))
#define GRADRING_UNROLL _Pragma("unroll")

#endif

// These includes are in the order of their dependencies.
// clang-format off
#include "cuda/device_atomic.h"
#include "cuda/device_memory.h"
#include "cuda/device_elements.h"
#include "cuda/device_reduce.h"
#include "cuda/device_rows.h"
// clang-format on

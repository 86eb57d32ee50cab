// Launches a kernel on the software runtime. Its arguments are copied by value, as in CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/software/grid.h"

namespace gradring::software {

// Checks the launch's limits and queues it.
cudaError_t launch(Launch launch, cudaStream_t stream);

template <class... P, class... A>
cudaError_t launch_kernel(const char* name, void (*kernel)(P...), dim3 blocks, dim3 threads, size_t dynamic_shared,
                          cudaStream_t stream, A&&... values) {
  std::tuple<std::decay_t<P>...> arguments{std::forward<A>(values)...};
  return launch({blocks, threads, dynamic_shared, name, reinterpret_cast<const void*>(kernel),
                 [kernel, arguments] { std::apply(kernel, arguments); }},
                stream);
}

}  // namespace gradring::software

// What the ops' CUDA kernels (*_cuda.cu) share. Include it after cuda/device.h: a call's operands and attributes by name, the
// step's fault, and loops over flat arrays.
#pragma once

#include <initializer_list>
#include <string_view>

#include "ops/cuda_kernels.h"

namespace gradring {

// The operand of this name, or an absent one if the op has none.
inline const Tensor& operand(const OpCall& call, std::string_view name) noexcept {
  static const Tensor absent;
  const int i = find_operand(*call.op, name);
  return i < 0 ? absent : call[i];
}
inline int64_t integer(const OpCall& call, std::string_view name) noexcept {
  const int i = find_attribute(*call.op, name);
  return i < 0 ? 0 : call.integer(i);
}
inline double real(const OpCall& call, std::string_view name, double otherwise = 0) noexcept {
  const int i = find_attribute(*call.op, name);
  return i < 0 ? otherwise : call.real(i);
}
inline bool flag(const OpCall& call, std::string_view name) noexcept { return integer(call, name) != 0; }

// Whether all operands of the call have one of these names. An op may have an operand that its CUDA kernel does not support.
inline bool has_only(const OpCall& call, std::initializer_list<std::string_view> names) noexcept {
  for (size_t i = 0; i < call.op->operands.size(); ++i) {
    if (!call[static_cast<int>(i)]) continue;
    bool known = false;
    for (const std::string_view name : names) known |= name == call.op->operands[i].name;
    if (!known) return false;
  }
  return true;
}

inline cudaStream_t stream_of(const CudaQueue& queue) noexcept { return static_cast<cudaStream_t>(queue.stream); }

// Whether the step that a call belongs to has failed, so that nothing may change.
__device__ __forceinline__ bool stopped(const StepRecord* step) {
  return step != nullptr && step->fault != Fault::kNone;
}

template <int kIn, int kOut, class T, class F>
__global__ void __launch_bounds__(device::kElementThreads)
    element_kernel(const StepRecord* step, int64_t n, device::Arrays<T> arrays, F f) {
  if (stopped(step)) return;
  // For sm_80, nvcc keeps a part of tanh in local memory if it computes on four vectors of doubles at once.
  constexpr int kMost = kIn == 1 && sizeof(T) == 8 ? 2 : 4;
  constexpr int kUnroll = kIn >= 4 ? 1 : kMost / (kIn > 0 ? kIn : 4);
  device::for_elements<kIn, kOut, kUnroll, int64_t>(device::thread_in_grid(), device::threads_in_grid(), n, arrays, f);
}

// Queues f(i, x, y) for each of n elements: see device_elements.h.
template <int kIn, int kOut, class T, class F>
int run_elements(const OpCall& call, const CudaQueue& queue, int64_t n, const device::Arrays<T>& arrays,
                 const F& f) noexcept {
  if (n == 0) return 0;
  const unsigned blocks = device::element_blocks(n, device::kVectorWidth<T>, queue.processors);
  const StepRecord* step = call.step;
  return LAUNCH((element_kernel<kIn, kOut, T, F>), dim3(blocks), dim3(device::kElementThreads), 0, stream_of(queue),
                step, n, arrays, f);
}

// Adds up `count` rows of `columns` numbers, in order, into one row. The rows are the sums of blocks of threads.
template <class W, class T>
__device__ __forceinline__ void add_rows(const W* rows, int64_t count, int64_t stride, int64_t columns, T* sums) {
  for (int64_t j = device::thread_in_grid(); j < columns; j += device::threads_in_grid()) {
    W sum = 0;
    for (int64_t b = 0; b < count; ++b) sum += rows[b * stride + j];
    sums[j] = device::narrow<T>(sum);
  }
}

inline unsigned blocks_for(int64_t n, int processors) noexcept { return device::element_blocks(n, 1, processors); }

// Kernels index the elements of a row by 32 bits: longer rows have no kernel.
inline bool fits_int(int64_t columns) noexcept { return columns <= 0x7fffffff - 4096; }

}  // namespace gradring

#include <algorithm>

#include "cuda/device.h"
#include "cuda/strided.h"

namespace gradring::cuda {

namespace {

struct Axes {
  int rank = 0;
  int64_t shape[kMostStridedRank] = {}, to[kMostStridedRank] = {}, from[kMostStridedRank] = {};
};

struct Sixteen {  // a complex128, which is aligned to 8 bytes
  uint64_t half[2];
};

template <class T>
__global__ void copy_kernel(char* to, const char* from, int64_t elements, Axes axes) {
  for (int64_t i = device::thread_in_grid(); i < elements; i += device::threads_in_grid()) {
    int64_t rest = i, there = 0, here = 0;
    for (int axis = axes.rank - 1; axis >= 0; --axis) {
      const int64_t at = rest % axes.shape[axis];
      rest /= axes.shape[axis];
      there += at * axes.to[axis], here += at * axes.from[axis];
    }
    *reinterpret_cast<T*>(to + there) = *reinterpret_cast<const T*>(from + here);
  }
}

// Drops axes of one element, and joins neighbours that lie in both arrays as one axis would.
Axes joined(const StridedArray& to, const StridedArray& from, const int64_t* shape, int rank) noexcept {
  Axes axes;
  for (int axis = 0; axis < rank; ++axis) {
    if (shape[axis] == 1) continue;
    const int last = axes.rank - 1;
    if (last >= 0 && axes.to[last] == to.strides[axis] * shape[axis] &&
        axes.from[last] == from.strides[axis] * shape[axis]) {
      axes.shape[last] *= shape[axis];
      axes.to[last] = to.strides[axis], axes.from[last] = from.strides[axis];
      continue;
    }
    axes.shape[axes.rank] = shape[axis];
    axes.to[axes.rank] = to.strides[axis], axes.from[axes.rank] = from.strides[axis];
    ++axes.rank;
  }
  return axes;
}

template <class T>
cudaError_t launch(const StridedArray& to, const StridedArray& from, int64_t elements, const Axes& axes,
                   cudaStream_t stream) noexcept {
  constexpr int kProcessors = 128;  // enough blocks for any device; a thread copies several elements of a large array
  const unsigned blocks = device::element_blocks(elements, 1, kProcessors);
  return LAUNCH(copy_kernel<T>, dim3(blocks), dim3(device::kElementThreads), 0, stream, static_cast<char*>(to.data),
                static_cast<const char*>(from.data), elements, axes);
}

}  // namespace

int queue_strided_copy(const StridedArray& to, const StridedArray& from, const int64_t* shape, int rank, size_t item,
                       void* stream) noexcept {
  if (rank < 0 || rank > kMostStridedRank) return noted("copy", cudaErrorInvalidValue);
  int64_t elements = 1;
  for (int axis = 0; axis < rank; ++axis) elements *= shape[axis];
  if (elements == 0) return cudaSuccess;
  const Axes axes = joined(to, from, shape, rank);
  const auto bytes = static_cast<int64_t>(item);
  auto* const on = static_cast<cudaStream_t>(stream);
  if (axes.rank == 0 || (axes.rank == 1 && axes.to[0] == bytes && axes.from[0] == bytes)) {
    return noted("cudaMemcpyAsync", cudaMemcpyAsync(to.data, from.data, static_cast<size_t>(elements) * item,
                                                    cudaMemcpyDeviceToDevice, on));
  }
  switch (item) {
    case 1: return launch<uint8_t>(to, from, elements, axes, on);
    case 2: return launch<uint16_t>(to, from, elements, axes, on);
    case 4: return launch<uint32_t>(to, from, elements, axes, on);
    case 8: return launch<uint64_t>(to, from, elements, axes, on);
    case 16: return launch<Sixteen>(to, from, elements, axes, on);
    default: return noted("copy", cudaErrorInvalidValue);
  }
}

}  // namespace gradring::cuda

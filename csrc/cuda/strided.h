// Copies between arrays of any strides in the memory of one device.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradring::cuda {

inline constexpr int kMostStridedRank = 32;

// An array's first element, and the bytes between neighbours along each axis, negative ones included.
struct StridedArray {
  void* data = nullptr;
  const int64_t* strides = nullptr;
};

// Queues to[...] = from[...] for arrays of this shape, whose elements have 1, 2, 4, 8 or 16 bytes. `from` may have strides of 0;
// the two must be apart, or be the same array. Returns a code of the CUDA runtime; cudaErrorInvalidValue: rank or item do not fit.
int queue_strided_copy(const StridedArray& to, const StridedArray& from, const int64_t* shape, int rank, size_t item,
                       void* stream) noexcept;

}  // namespace gradring::cuda

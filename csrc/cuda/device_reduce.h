// Sums and maxima over the threads of a warp and of a block, in an order that depends only on the number of threads: two runs
// give the same bits. Every thread receives the result. device.h includes this.
#pragma once

namespace gradring::device {

inline constexpr unsigned kWholeWarp = 0xffffffffu;
inline constexpr int kMostWarps = 32;

struct Plus {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
// The larger of two values; NaN if either is NaN.
struct Larger {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

template <class T, class Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
  GRADRING_UNROLL
  for (int distance = 16; distance > 0; distance >>= 1) {
    value = combine(value, __shfl_xor_sync(kWholeWarp, value, distance));
  }
  return value;
}

__device__ __forceinline__ int lane_in_warp() { return static_cast<int>(threadIdx.x & 31u); }
__device__ __forceinline__ int warp_in_block() { return static_cast<int>(threadIdx.x >> 5); }
__device__ __forceinline__ int warps_in_block() { return static_cast<int>((blockDim.x + 31u) >> 5); }

// `parts` is shared memory for kMostWarps values, free again on return. blockDim.x is a multiple of 32; y and z are 1.
template <class T, class Combine>
__device__ __forceinline__ T block_reduce(T value, T* parts, Combine combine) {
  value = warp_reduce(value, combine);
  if (lane_in_warp() == 0) parts[warp_in_block()] = value;
  __syncthreads();
  T total = parts[0];
  for (int warp = 1; warp < warps_in_block(); ++warp) total = combine(total, parts[warp]);
  __syncthreads();
  return total;
}

}  // namespace gradring::device

// CUDA's device language for g++, made from grid.h. Only cuda/device.h includes this file.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/software/control.h"
#include "cuda/software/grid.h"
#include "cuda/software/launch.h"
#include "cuda/software/report.h"

#undef __shared__
#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (::gradring::software::now->thread)
#define blockIdx (::gradring::software::now->block)
#define blockDim (::gradring::software::now->threads)
#define gridDim (::gradring::software::now->blocks)
inline constexpr int warpSize = 32;

namespace gradring::software {

// Copies by two ordinary accesses per side, which ThreadSanitizer watches; it may not see a memcpy of 16 bytes that the
// compiler expands.
inline void copy_16_bytes(void* to, const void* from) {
  typedef uint64_t __attribute__((may_alias)) Word;
  for (int i = 0; i < 2; ++i) static_cast<Word*>(to)[i] = static_cast<const Word*>(from)[i];
}

// Sends any 32- or 64-bit value through a shuffle.
template <class T>
T shuffle_value(unsigned mask, T value, int source, const Site& site) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace gradring::software

inline void __syncthreads(gradring::software::Site site = gradring::software::Site::current()) {
  gradring::software::block_barrier(gradring::software::Vote::kNone, false, site);
}
inline int __syncthreads_or(int mine, gradring::software::Site site = gradring::software::Site::current()) {
  return gradring::software::block_barrier(gradring::software::Vote::kOr, mine != 0, site);
}
inline int __syncthreads_and(int mine, gradring::software::Site site = gradring::software::Site::current()) {
  return gradring::software::block_barrier(gradring::software::Vote::kAnd, mine != 0, site);
}
inline int __syncthreads_count(int mine, gradring::software::Site site = gradring::software::Site::current()) {
  return gradring::software::block_barrier(gradring::software::Vote::kCount, mine != 0, site);
}
inline void __syncwarp(unsigned mask = ~0u, gradring::software::Site site = gradring::software::Site::current()) {
  gradring::software::warp_barrier(mask, site);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              gradring::software::Site site = gradring::software::Site::current()) {
  const int segment = gradring::software::lane_number() & ~(width - 1);
  return gradring::software::shuffle_value(mask, value, segment + (source & (width - 1)), site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  gradring::software::Site site = gradring::software::Site::current()) {
  const int me = gradring::software::lane_number(), to = me ^ bits;
  return gradring::software::shuffle_value(mask, value, to > (me | (width - 1)) ? me : to, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   gradring::software::Site site = gradring::software::Site::current()) {
  const int me = gradring::software::lane_number(), to = me + static_cast<int>(distance);
  return gradring::software::shuffle_value(mask, value, to > (me | (width - 1)) ? me : to, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 gradring::software::Site site = gradring::software::Site::current()) {
  const int me = gradring::software::lane_number(), to = me - static_cast<int>(distance);
  return gradring::software::shuffle_value(mask, value, to < (me & ~(width - 1)) ? me : to, site);
}
inline unsigned __ballot_sync(unsigned mask, int mine,
                              gradring::software::Site site = gradring::software::Site::current()) {
  return gradring::software::ballot(mask, mine != 0, site);
}
inline int __any_sync(unsigned mask, int mine, gradring::software::Site site = gradring::software::Site::current()) {
  return gradring::software::ballot(mask, mine != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int mine, gradring::software::Site site = gradring::software::Site::current()) {
  return gradring::software::ballot(mask, mine != 0, site) == mask;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline void __nanosleep(unsigned) { gradring::software::relax(); }

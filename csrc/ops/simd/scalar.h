// The scalar form of simd.h for device code: a vector is one element, so a formula that is written with simd.h is one source
// for CPUs and GPUs. simd.h includes it in *.cu files, after cuda/device.h.
#pragma once

#include <cstdint>
#include <type_traits>

#define GRADRING_ISA_NAMESPACE device
#define GRADRING_INLINE __device__ __forceinline__
#define GRADRING_UNROLL_16 GRADRING_UNROLL

namespace gradring::device {

template <class T>
using Vec = T;

template <class T>
inline constexpr int kWidth = 1;

template <class T>
GRADRING_INLINE Vec<T> load(const T* from) noexcept {
  return *from;
}
template <class T>
GRADRING_INLINE void store(T* to, Vec<std::type_identity_t<T>> v) noexcept {
  *to = v;
}
template <class T>
GRADRING_INLINE Vec<T> broadcast(T x) noexcept {
  return x;
}

// a > b ? a : b, which is b where either is NaN.
template <class T>
GRADRING_INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) noexcept {
  return a > b ? a : b;
}
template <class T>
GRADRING_INLINE Vec<T> minimum(Vec<T> a, Vec<T> b) noexcept {
  return a < b ? a : b;
}

template <class T>
GRADRING_INLINE Vec<T> square_root(Vec<T> x) noexcept {
  if constexpr (sizeof(T) == 4) {
    return sqrtf(x);
  } else {
    return sqrt(x);
  }
}

}  // namespace gradring::device

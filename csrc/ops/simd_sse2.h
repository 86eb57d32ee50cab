// SSE2 forms of simd.h's functions. Only simd.h includes this file.
#pragma once

#include <emmintrin.h>

namespace gradring::GRADRING_ISA_NAMESPACE {

template <>
GRADRING_INLINE Vec<float> maximum<float>(Vec<float> a, Vec<float> b) noexcept {
  return _mm_max_ps(a, b);
}
template <>
GRADRING_INLINE Vec<float> minimum<float>(Vec<float> a, Vec<float> b) noexcept {
  return _mm_min_ps(a, b);
}
template <>
GRADRING_INLINE Vec<float> square_root<float>(Vec<float> x) noexcept {
  return _mm_sqrt_ps(x);
}
template <>
GRADRING_INLINE Vec<double> maximum<double>(Vec<double> a, Vec<double> b) noexcept {
  return _mm_max_pd(a, b);
}
template <>
GRADRING_INLINE Vec<double> minimum<double>(Vec<double> a, Vec<double> b) noexcept {
  return _mm_min_pd(a, b);
}
template <>
GRADRING_INLINE Vec<double> square_root<double>(Vec<double> x) noexcept {
  return _mm_sqrt_pd(x);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

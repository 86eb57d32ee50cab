// AVX-512 forms of simd.h's functions. Only simd.h includes this file. The maskz forms with a full mask compile to the
// plain instruction; the plain intrinsics make GCC 12 warn about their undefined pass-through operand.
#pragma once

#include <immintrin.h>

namespace gradring::GRADRING_ISA_NAMESPACE {

template <>
GRADRING_INLINE Vec<float> load_partial<float>(const float* from, int64_t n) noexcept {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
}
template <>
GRADRING_INLINE void store_partial<float>(float* to, Vec<float> v, int64_t n) noexcept {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1), v);
}
template <>
GRADRING_INLINE Vec<double> load_partial<double>(const double* from, int64_t n) noexcept {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), from);
}
template <>
GRADRING_INLINE void store_partial<double>(double* to, Vec<double> v, int64_t n) noexcept {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << n) - 1), v);
}
template <>
GRADRING_INLINE Vec<float> maximum<float>(Vec<float> a, Vec<float> b) noexcept {
  return _mm512_maskz_max_ps(0xffff, a, b);
}
template <>
GRADRING_INLINE Vec<float> minimum<float>(Vec<float> a, Vec<float> b) noexcept {
  return _mm512_maskz_min_ps(0xffff, a, b);
}
template <>
GRADRING_INLINE Vec<float> square_root<float>(Vec<float> x) noexcept {
  return _mm512_maskz_sqrt_ps(0xffff, x);
}
template <>
GRADRING_INLINE Vec<double> maximum<double>(Vec<double> a, Vec<double> b) noexcept {
  return _mm512_maskz_max_pd(0xff, a, b);
}
template <>
GRADRING_INLINE Vec<double> minimum<double>(Vec<double> a, Vec<double> b) noexcept {
  return _mm512_maskz_min_pd(0xff, a, b);
}
template <>
GRADRING_INLINE Vec<double> square_root<double>(Vec<double> x) noexcept {
  return _mm512_maskz_sqrt_pd(0xff, x);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// AVX2 forms of simd.h's functions. Only simd.h includes this file.
#pragma once

#include <immintrin.h>

namespace gradring::GRADRING_ISA_NAMESPACE {

// A mask that has all bits set in the first n elements.
GRADRING_INLINE __m256i first_32(int64_t n) noexcept {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
GRADRING_INLINE __m256i first_64(int64_t n) noexcept {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

template <>
GRADRING_INLINE Vec<float> load_partial<float>(const float* from, int64_t n) noexcept {
  return _mm256_maskload_ps(from, first_32(n));
}
template <>
GRADRING_INLINE void store_partial<float>(float* to, Vec<float> v, int64_t n) noexcept {
  _mm256_maskstore_ps(to, first_32(n), v);
}
template <>
GRADRING_INLINE Vec<double> load_partial<double>(const double* from, int64_t n) noexcept {
  return _mm256_maskload_pd(from, first_64(n));
}
template <>
GRADRING_INLINE void store_partial<double>(double* to, Vec<double> v, int64_t n) noexcept {
  _mm256_maskstore_pd(to, first_64(n), v);
}
template <>
GRADRING_INLINE Vec<float> maximum<float>(Vec<float> a, Vec<float> b) noexcept {
  return _mm256_max_ps(a, b);
}
template <>
GRADRING_INLINE Vec<float> minimum<float>(Vec<float> a, Vec<float> b) noexcept {
  return _mm256_min_ps(a, b);
}
template <>
GRADRING_INLINE Vec<float> square_root<float>(Vec<float> x) noexcept {
  return _mm256_sqrt_ps(x);
}
template <>
GRADRING_INLINE Vec<double> maximum<double>(Vec<double> a, Vec<double> b) noexcept {
  return _mm256_max_pd(a, b);
}
template <>
GRADRING_INLINE Vec<double> minimum<double>(Vec<double> a, Vec<double> b) noexcept {
  return _mm256_min_pd(a, b);
}
template <>
GRADRING_INLINE Vec<double> square_root<double>(Vec<double> x) noexcept {
  return _mm256_sqrt_pd(x);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

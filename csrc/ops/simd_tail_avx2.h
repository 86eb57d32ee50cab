// Tail by AVX's masked moves. Only simd_tail.h includes this file.
#pragma once

#include <immintrin.h>

#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
class Tail;

template <>
class Tail<float> {
 public:
  explicit GRADRING_INLINE Tail(int64_t count) noexcept
      : mask_(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                 _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))) {}
  GRADRING_INLINE Vec<float> load(const float* from) const noexcept {
    return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(from, mask_));
  }
  GRADRING_INLINE void store(float* to, Vec<float> v) const noexcept {
    _mm256_maskstore_ps(to, mask_, reinterpret_cast<__m256>(v));
  }

 private:
  __m256i mask_;
};

template <>
class Tail<double> {
 public:
  explicit GRADRING_INLINE Tail(int64_t count) noexcept
      : mask_(_mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3))) {}
  GRADRING_INLINE Vec<double> load(const double* from) const noexcept {
    return reinterpret_cast<Vec<double>>(_mm256_maskload_pd(from, mask_));
  }
  GRADRING_INLINE void store(double* to, Vec<double> v) const noexcept {
    _mm256_maskstore_pd(to, mask_, reinterpret_cast<__m256d>(v));
  }

 private:
  __m256i mask_;
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

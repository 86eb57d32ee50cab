// Tail by AVX-512's mask registers. Only simd_tail.h includes this file.
#pragma once

#include <immintrin.h>

#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
class Tail;

template <>
class Tail<float> {
 public:
  explicit GRADRING_INLINE Tail(int64_t count) noexcept : mask_(static_cast<__mmask16>((1u << count) - 1)) {}
  GRADRING_INLINE Vec<float> load(const float* from) const noexcept {
    return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(mask_, from));
  }
  GRADRING_INLINE void store(float* to, Vec<float> v) const noexcept {
    _mm512_mask_storeu_ps(to, mask_, reinterpret_cast<__m512>(v));
  }

 private:
  __mmask16 mask_;
};

template <>
class Tail<double> {
 public:
  explicit GRADRING_INLINE Tail(int64_t count) noexcept : mask_(static_cast<__mmask8>((1u << count) - 1)) {}
  GRADRING_INLINE Vec<double> load(const double* from) const noexcept {
    return reinterpret_cast<Vec<double>>(_mm512_maskz_loadu_pd(mask_, from));
  }
  GRADRING_INLINE void store(double* to, Vec<double> v) const noexcept {
    _mm512_mask_storeu_pd(to, mask_, reinterpret_cast<__m512d>(v));
  }

 private:
  __mmask8 mask_;
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

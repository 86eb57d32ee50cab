// Loads and stores the first elements of a vector of 16-bit floats, touching nothing beyond them. Only for *_cpu.cc files.
#pragma once

#include "ops/simd/half.h"

#if defined(__AVX512VL__) && defined(__AVX512BW__)
#include <immintrin.h>
#endif

namespace gradring::GRADRING_ISA_NAMESPACE {

#if defined(__AVX512VL__) && defined(__AVX512BW__) && GRADRING_VECTOR_BYTES == 64
// 1 <= n <= 16; the elements from n on become 0.
GRADRING_INLINE HalfVector load_halves(const void* from, int64_t n) noexcept {
  return reinterpret_cast<HalfVector>(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), from));
}
GRADRING_INLINE void store_halves(void* to, HalfVector halves, int64_t n) noexcept {
  _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << n) - 1), reinterpret_cast<__m256i>(halves));
}
#else
GRADRING_INLINE HalfVector load_halves(const void* from, int64_t n) noexcept {
  const auto* const elements = static_cast<const uint16_t*>(from);
  HalfVector halves{};
  for (int i = 0; i < kWidth<float>; ++i)
    if (i < n) halves[i] = elements[i];
  return halves;
}
GRADRING_INLINE void store_halves(void* to, HalfVector halves, int64_t n) noexcept {
  auto* const elements = static_cast<uint16_t*>(to);
  for (int i = 0; i < kWidth<float>; ++i)
    if (i < n) elements[i] = halves[i];
}
#endif

}  // namespace gradring::GRADRING_ISA_NAMESPACE

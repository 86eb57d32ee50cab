// Converts vectors of half floats (float16) to float32. Only cast_cpu.cc includes it.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace gradring::GRADRING_ISA_NAMESPACE {

// Half floats. Every processor with AVX2 has an instruction for them (F16C, for which cpu.cc looks). Without it, integer
// operations move the exponent, and a difference of floats normalizes subnormal numbers, as in Giesen's half_to_float.
inline void halves_to_floats_one_by_one(float* to, const char* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    __builtin_memcpy(&half, from + i * static_cast<int64_t>(sizeof half), sizeof half);
    const uint32_t size = half & 0x7fffU;
    const uint32_t moved = size << 13;
    const uint32_t normal = moved + (112U << 23);
    // Infinities and NaN. A NaN becomes quiet, as in the processor's own conversion.
    const uint32_t special = (moved + (224U << 23)) | (size > 0x7c00U ? 0x400000U : 0U);
    constexpr uint32_t kSmallest = 113U << 23;  // the bits of 2^-14, the smallest normal half
    const uint32_t shifted = moved + kSmallest;
    float value, smallest;
    __builtin_memcpy(&value, &shifted, sizeof value);
    __builtin_memcpy(&smallest, &kSmallest, sizeof smallest);
    value -= smallest;
    uint32_t subnormal;
    __builtin_memcpy(&subnormal, &value, sizeof subnormal);
    const uint32_t found = size >= 0x7c00U ? special : size >= 0x400U ? normal : subnormal;
    const uint32_t bits = found | (half & 0x8000U) << 16;
    __builtin_memcpy(to + i, &bits, sizeof bits);
  }
}

#if defined(__AVX512F__) && GRADRING_VECTOR_BYTES == 64
inline void halves_to_floats(float* to, const char* from, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * i));
    _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(0xffff, halves));  // the maskz form: see simd_avx512.h
  }
  halves_to_floats_one_by_one(to + i, from + 2 * i, count - i);
}
#elif defined(__AVX2__)
__attribute__((target("f16c"))) inline void halves_to_floats(float* to, const char* from, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i))));
  }
  halves_to_floats_one_by_one(to + i, from + 2 * i, count - i);
}
#else
inline void halves_to_floats(float* to, const char* from, int64_t count) {
  halves_to_floats_one_by_one(to, from, count);
}
#endif

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// The processor's own conversion of half floats (float16), which every processor with AVX2 has: F16C, for which cpu.cc looks.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace gradring::GRADRING_ISA_NAMESPACE {

// Converts as many half floats to float32 as make up whole vectors, and returns their number; none where there is no F16C.
#if defined(__AVX512F__) && GRADRING_VECTOR_BYTES == 64
inline int64_t convert_halves(float* to, const char* from, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * i));
    _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(0xffff, halves));  // the maskz form: see simd_avx512.h
  }
  return i;
}
#elif defined(__AVX2__)
__attribute__((target("f16c"))) inline int64_t convert_halves(float* to, const char* from, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i))));
  }
  return i;
}
#else
inline int64_t convert_halves(float*, const char*, int64_t) { return 0; }
#endif

}  // namespace gradring::GRADRING_ISA_NAMESPACE

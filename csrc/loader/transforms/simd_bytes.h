// Bytes as floats, and a fused multiply-add, in the vectors of ops/simd.h. Only transform_cpu.cc includes this file.
//
// They are written with intrinsics because GCC 12 compiles __builtin_convertvector from bytes to floats element by element, and a
// plain loop over bytes into blocks of 64 elements, after which it does the rest (16 elements of a row of 784) one by one.
#pragma once

#include "ops/simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace gradring::GRADRING_ISA_NAMESPACE {

// Loads kWidth<float> bytes, which need not be aligned, as floats.
GRADRING_INLINE Vec<float> load_bytes(const uint8_t* from) noexcept {
#if defined(__AVX512F__) && GRADRING_VECTOR_BYTES == 64
  // simd_avx512.h says why this uses the intrinsic with a mask.
  return _mm512_maskz_cvtepi32_ps(
      0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__) && GRADRING_VECTOR_BYTES == 32
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#elif defined(__SSE2__)
  int packed;
  __builtin_memcpy(&packed, from, sizeof packed);
  const __m128i zero = _mm_setzero_si128();
  return _mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(packed), zero), zero));
#else
  Vec<float> v{};
  for (int i = 0; i < kWidth<float>; ++i) v[i] = static_cast<float>(from[i]);
  return v;
#endif
}

#if defined(__FMA__)
// a * b + c, rounded once.
GRADRING_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) noexcept {
#if GRADRING_VECTOR_BYTES == 64
  return _mm512_maskz_fmadd_ps(0xffff, a, b, c);
#else
  return _mm256_fmadd_ps(a, b, c);
#endif
}
#endif

}  // namespace gradring::GRADRING_ISA_NAMESPACE

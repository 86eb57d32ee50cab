// 16-bit floats as vectors of float32, by integer arithmetic that every ISA level has. Only for *_cpu.cc files.
//
// No step makes or needs a subnormal float32, so the results do not depend on the thread's flush-to-zero mode.
#pragma once

#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

typedef uint16_t HalfVector __attribute__((vector_size(GRADRING_VECTOR_BYTES / 2)));
using Bits = Vec<uint32_t>;

GRADRING_INLINE Bits bits_of(Vec<float> v) noexcept { return reinterpret_cast<Bits>(v); }
GRADRING_INLINE Vec<float> from_bits(Bits b) noexcept { return reinterpret_cast<Vec<float>>(b); }
GRADRING_INLINE Bits choose(Bits mask, Bits yes, Bits no) noexcept { return (mask & yes) | (~mask & no); }
GRADRING_INLINE Bits all_if(Vec<int32_t> comparison) noexcept { return reinterpret_cast<Bits>(comparison); }
GRADRING_INLINE Bits repeat(uint32_t value) noexcept { return value - Bits{}; }

// Halves as integers of 32 bits, and the upper halves of such integers. GCC 12 makes four instructions of a conversion of vectors
// where the processor has one.
#if defined(__AVX512F__) && GRADRING_VECTOR_BYTES == 64
GRADRING_INLINE Bits wide_bits(HalfVector h) noexcept {
  return reinterpret_cast<Bits>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(h)));
}
GRADRING_INLINE HalfVector upper_halves(Bits b) noexcept {
  return reinterpret_cast<HalfVector>(_mm512_maskz_cvtepi32_epi16(0xffff, reinterpret_cast<__m512i>(b >> 16)));
}
#elif defined(__AVX2__) && GRADRING_VECTOR_BYTES == 32
GRADRING_INLINE Bits wide_bits(HalfVector h) noexcept {
  return reinterpret_cast<Bits>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(h)));
}
GRADRING_INLINE HalfVector upper_halves(Bits b) noexcept {
  const auto upper = reinterpret_cast<__m256i>(b >> 16);
  return reinterpret_cast<HalfVector>(
      _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), 0x08)));
}
#else
GRADRING_INLINE Bits wide_bits(HalfVector h) noexcept { return __builtin_convertvector(h, Bits); }
GRADRING_INLINE HalfVector upper_halves(Bits b) noexcept { return __builtin_convertvector(b >> 16, HalfVector); }
#endif

GRADRING_INLINE Vec<float> widen_bfloat16(HalfVector h) noexcept { return from_bits(wide_bits(h) << 16); }

// Rounds to the nearest, ties to even; a NaN becomes a quiet NaN.
GRADRING_INLINE HalfVector narrow_bfloat16(Vec<float> v) noexcept {
  const Bits b = bits_of(v);
  const Bits rounded = b + 0x7fff + ((b >> 16) & 1);
  return upper_halves(v == v ? rounded : b | 0x400000);
}

GRADRING_INLINE Vec<float> widen_float16(HalfVector h) noexcept {
  const Bits b = wide_bits(h);
  const Bits magnitude = (b & 0x7fff) << 13;
  const Bits sign = (b & 0x8000) << 16;
  const Bits normal = magnitude + (112u << 23);
  // Computes m 2^-24 as (2^-14 + m 2^-24) - 2^-14, because float32 holds both exactly.
  const Vec<float> small = from_bits(magnitude + repeat(0x38800000)) - from_bits(repeat(0x38800000));
  Bits value = choose(all_if(magnitude < (1u << 23)), bits_of(small), normal);
  value = choose(all_if(magnitude >= (31u << 23)), magnitude | 0x7f800000, value);
  value =
      choose(all_if(magnitude > (31u << 23)), value | 0x400000, value);  // a NaN becomes quiet, as a processor makes it
  return from_bits(value | sign);
}

// Rounds to the nearest, ties to even; numbers beyond the largest finite half become infinity.
GRADRING_INLINE HalfVector narrow_float16(Vec<float> v) noexcept {
  const Bits b = bits_of(v);
  const Bits magnitude = b & 0x7fffffff;
  const Bits sign = (b >> 16) & 0x8000;
  const Bits normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Adding 2^-1 to a number that is a subnormal half rounds it to a multiple of 2^-24; the sum's mantissa is then the half.
  const Bits small = bits_of(from_bits(magnitude) + from_bits(repeat(0x3f000000))) - 0x3f000000;
  Bits half = choose(all_if(magnitude < (113u << 23)), small, normal);
  half = choose(all_if(magnitude >= 0x477ff000), repeat(0x7c00), half);  // 65520 rounds to infinity
  half = choose(all_if(magnitude > 0x7f800000), 0x7e00 | ((magnitude >> 13) & 0x3ff), half);
  return __builtin_convertvector(half | sign, HalfVector);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

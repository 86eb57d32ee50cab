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

GRADRING_INLINE Vec<float> widen_bfloat16(HalfVector h) noexcept {
  return from_bits(__builtin_convertvector(h, Bits) << 16);
}

// Rounds to the nearest, ties to even; a NaN becomes a quiet NaN.
GRADRING_INLINE HalfVector narrow_bfloat16(Vec<float> v) noexcept {
  const Bits b = bits_of(v);
  const Bits rounded = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  return __builtin_convertvector(choose(all_if(v != v), (b >> 16) | 0x40, rounded), HalfVector);
}

GRADRING_INLINE Vec<float> widen_float16(HalfVector h) noexcept {
  const Bits b = __builtin_convertvector(h, Bits);
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

#include "ops/cast/kernels.h"
#include "ops/simd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// A plain loop, which compilers turn into the ISA's conversions; memcpy because a row of a memory-mapped record may
// start anywhere.
template <class To, class From>
void cast(void* to, const void* from, int64_t count) {
  auto* out = static_cast<To*>(to);
  const auto* in = static_cast<const char*>(from);
  for (int64_t i = 0; i < count; ++i) {
    From value;
    __builtin_memcpy(&value, in + i * static_cast<int64_t>(sizeof(From)), sizeof value);
    out[i] = static_cast<To>(value);
  }
}

// Half floats. Every processor with AVX2 converts them (F16C, for which cpu.cc looks). Elsewhere the exponent is moved as
// an integer, and a difference of floats normalizes what is subnormal, as in Giesen's half_to_float.
void halves_to_floats_one_by_one(float* to, const char* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    __builtin_memcpy(&half, from + i * static_cast<int64_t>(sizeof half), sizeof half);
    const uint32_t size = half & 0x7fffU;
    const uint32_t moved = size << 13;
    const uint32_t normal = moved + (112U << 23);
    const uint32_t special = moved + (224U << 23);  // infinities and NaN
    constexpr uint32_t kSmallest = 113U << 23;      // of 2^-14, the smallest normal half
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
void halves_to_floats(float* to, const char* from, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * i));
    _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(0xffff, halves));  // the maskz form: see simd_avx512.h
  }
  halves_to_floats_one_by_one(to + i, from + 2 * i, count - i);
}
#elif defined(__AVX2__)
__attribute__((target("f16c"))) void halves_to_floats(float* to, const char* from, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i))));
  }
  halves_to_floats_one_by_one(to + i, from + 2 * i, count - i);
}
#else
void halves_to_floats(float* to, const char* from, int64_t count) { halves_to_floats_one_by_one(to, from, count); }
#endif

void cast_half_to_float(void* to, const void* from, int64_t count) {
  halves_to_floats(static_cast<float*>(to), static_cast<const char*>(from), count);
}

template <class To>
void cast_half(void* to, const void* from, int64_t count) {
  constexpr int64_t kBlock = 256;
  float block[kBlock];
  auto* out = static_cast<To*>(to);
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t n = count - first < kBlock ? count - first : kBlock;
    halves_to_floats(block, static_cast<const char*>(from) + 2 * first, n);
    for (int64_t i = 0; i < n; ++i) out[first + i] = static_cast<To>(block[i]);
  }
}

template <class T>
void copy(void* to, const void* from, int64_t count) {
  if (count > 0) __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(T));  // no elements may have no address
}

}  // namespace

#define GRADRING_CASTS(To, same32, same64, same_int, half) \
  {same32,                                                 \
   same64,                                                 \
   cast<To, uint8_t>,                                      \
   cast<To, int8_t>,                                       \
   cast<To, int16_t>,                                      \
   cast<To, int32_t>,                                      \
   same_int,                                               \
   cast<To, uint8_t>,                                      \
   cast<To, uint16_t>,                                     \
   cast<To, uint32_t>,                                     \
   cast<To, uint64_t>,                                     \
   half}

extern const CastKernels cast_kernels;
const CastKernels cast_kernels = {
    GRADRING_CASTS(float, copy<float>, (cast<float, double>), (cast<float, int64_t>), cast_half_to_float),
    GRADRING_CASTS(double, (cast<double, float>), copy<double>, (cast<double, int64_t>), cast_half<double>),
    GRADRING_CASTS(int64_t, (cast<int64_t, float>), (cast<int64_t, double>), copy<int64_t>, cast_half<int64_t>),
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

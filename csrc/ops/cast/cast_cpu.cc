#include <type_traits>

#include "ops/cast/kernels.h"
#include "ops/simd.h"
#include "ops/simd/half.h"
#include "ops/simd/simd_f16c.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Compilers turn this plain loop into the ISA's conversions. It uses memcpy because a row of a memory-mapped record
// may start at any address.
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

// Converts 16-bit floats to float32, a vector at a time.
template <Vec<float> (*kWiden)(HalfVector) noexcept>
void widen(float* to, const char* from, int64_t count) {
  constexpr int64_t W = kWidth<float>;
  for (int64_t i = 0; i < count; i += W) {
    const auto n = static_cast<size_t>(count - i < W ? count - i : W);
    HalfVector halves{};
    if (n == W) {
      __builtin_memcpy(&halves, from + 2 * i, sizeof halves);
    } else {
      __builtin_memcpy(&halves, from + 2 * i, 2 * n);
    }
    const Vec<float> values = kWiden(halves);
    if (n == W) {
      __builtin_memcpy(to + i, &values, sizeof values);
    } else {
      __builtin_memcpy(to + i, &values, 4 * n);
    }
  }
}

void halves_to_floats(float* to, const char* from, int64_t count) {
  const int64_t done = convert_halves(to, from, count);
  widen<widen_float16>(to + done, from + 2 * done, count - done);
}

// Converts 16-bit floats to float32.
using Widen = void (*)(float* to, const char* from, int64_t count);

// Converts 16-bit floats by way of blocks of float32; if the target is float32, it writes there directly.
template <class To, Widen kWiden>
void cast_from_16(void* to, const void* from, int64_t count) {
  if constexpr (std::is_same_v<To, float>) {
    return kWiden(static_cast<float*>(to), static_cast<const char*>(from), count);
  }
  constexpr int64_t kBlock = 256;
  float block[kBlock];
  auto* out = static_cast<To*>(to);
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t n = count - first < kBlock ? count - first : kBlock;
    kWiden(block, static_cast<const char*>(from) + 2 * first, n);
    for (int64_t i = 0; i < n; ++i) out[first + i] = static_cast<To>(block[i]);
  }
}

// Converts float32 to 16-bit floats. It rounds to the nearest, and ties to even.
template <HalfVector (*kNarrow)(Vec<float>) noexcept>
void narrow(void* to, const void* from, int64_t count) {
  constexpr int64_t W = kWidth<float>;
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  Vec<float> values{};
  HalfVector halves;
  for (int64_t i = 0; i < count; i += W) {
    const auto n = static_cast<size_t>(count - i < W ? count - i : W);
    if (n == W) {
      __builtin_memcpy(&values, in + 4 * i, sizeof values);
    } else {
      values = Vec<float>{};
      __builtin_memcpy(&values, in + 4 * i, 4 * n);
    }
    halves = kNarrow(values);
    if (n == W) {
      __builtin_memcpy(out + 2 * i, &halves, sizeof halves);
    } else {
      __builtin_memcpy(out + 2 * i, &halves, 2 * n);
    }
  }
}

template <class T>
void copy(void* to, const void* from, int64_t count) {
  if (count > 0)
    __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(T));  // with no elements, the pointers may be null
}

}  // namespace

#define GRADRING_CASTS(To, same32, same64, same_int) \
  {same32,                                           \
   same64,                                           \
   cast<To, uint8_t>,                                \
   cast<To, int8_t>,                                 \
   cast<To, int16_t>,                                \
   cast<To, int32_t>,                                \
   same_int,                                         \
   cast<To, uint8_t>,                                \
   cast<To, uint16_t>,                               \
   cast<To, uint32_t>,                               \
   cast<To, uint64_t>,                               \
   cast_from_16<To, halves_to_floats>,               \
   cast_from_16<To, widen<widen_bfloat16>>}

extern const CastKernels cast_kernels;
const CastKernels cast_kernels = {
    GRADRING_CASTS(float, copy<float>, (cast<float, double>), (cast<float, int64_t>)),
    GRADRING_CASTS(double, (cast<double, float>), copy<double>, (cast<double, int64_t>)),
    GRADRING_CASTS(int64_t, (cast<int64_t, float>), (cast<int64_t, double>), copy<int64_t>),
    narrow<narrow_float16>,
    narrow<narrow_bfloat16>,
};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

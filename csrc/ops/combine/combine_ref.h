// The reference: one element at a time, in float32 (float64 for float64, wrapping integers for integers).
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "ops/combine/combine.h"

namespace gradring::reference {

// By value: sign, exponent and fraction of a 16-bit float with `fraction` bits of fraction.
inline float widen(uint16_t half, int fraction, int bias) {
  const int exponent_bits = 15 - fraction;
  const int mask = (1 << exponent_bits) - 1;
  const int exponent = (half >> fraction) & mask;
  const int mantissa = half & ((1 << fraction) - 1);
  double value = exponent == mask ? (mantissa ? std::numeric_limits<double>::quiet_NaN() : HUGE_VAL)
                 : exponent == 0  ? std::ldexp(mantissa, 1 - bias - fraction)
                                  : std::ldexp(mantissa + (1 << fraction), exponent - bias - fraction);
  return static_cast<float>(half & 0x8000 ? -value : value);
}

// To the nearest representable value, ties to the even one; overflow to infinity.
inline uint16_t narrow(float value, int fraction, int bias) {
  const int exponent_bits = 15 - fraction;
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const auto infinity = static_cast<uint16_t>(((1 << exponent_bits) - 1) << fraction);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | infinity | (1 << (fraction - 1)));
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(magnitude)) return sign | infinity;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude in [2^(exponent-1), 2^exponent)
  const int lowest = 1 - bias - fraction;
  const int unit = magnitude == 0 ? lowest : std::max(exponent - 1 - fraction, lowest);
  const double units = std::nearbyint(std::ldexp(magnitude, -unit));  // exact before rounding; ties to even
  // As bits: consecutive halves are consecutive integers, so a carry into the exponent comes out right.
  const double bits = units + static_cast<double>(unit - lowest) * (1 << fraction);
  return bits >= infinity ? sign | infinity : static_cast<uint16_t>(sign | static_cast<uint16_t>(bits));
}

template <class T>
T reduce(T a, T b, Reduction reduction) {
  if (reduction == Reduction::kMax) return (a >= b || a != a) ? a : b;
  if (reduction == Reduction::kMin) return (a <= b || a != a) ? a : b;
  if constexpr (std::is_integral_v<T>) {
    const auto x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
    return static_cast<T>(reduction == Reduction::kProd ? x * y : x + y);
  } else {
    return reduction == Reduction::kProd ? a * b : a + b;
  }
}

template <class T, class Load, class Store>
void combine(const CombineArguments& g, Reduction reduction, Load load, Store store) {
  for (int64_t i = 0; i < g.count; ++i) {
    T value = load(g.in[0], i);
    for (int k = 1; k < g.inputs; ++k) value = reduce<T>(value, load(g.in[k], i), reduction);
    if (reduction == Reduction::kMean) value = static_cast<T>(value / static_cast<T>(g.divisor));
    for (int k = 0; k < g.outputs; ++k) store(g.out[k], i, value);
  }
}

template <class T>
void combine_plain(const CombineArguments& g, Reduction reduction) {
  combine<T>(
      g, reduction,
      [](const void* from, int64_t i) {
        T value;
        std::memcpy(&value, static_cast<const char*>(from) + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
        return value;
      },
      [](void* to, int64_t i, T value) {
        std::memcpy(static_cast<char*>(to) + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
      });
}

inline void combine_half(const CombineArguments& g, Reduction reduction, int fraction, int bias) {
  combine<float>(
      g, reduction,
      [=](const void* from, int64_t i) {
        uint16_t half;
        std::memcpy(&half, static_cast<const char*>(from) + 2 * i, 2);
        return widen(half, fraction, bias);
      },
      [=](void* to, int64_t i, float value) {
        const uint16_t half = narrow(value, fraction, bias);
        std::memcpy(static_cast<char*>(to) + 2 * i, &half, 2);
      });
}

inline void combine(const CombineArguments& g, Element element, Reduction reduction) {
  switch (element) {
    case Element::kFloat32: return combine_plain<float>(g, reduction);
    case Element::kFloat64: return combine_plain<double>(g, reduction);
    case Element::kFloat16: return combine_half(g, reduction, 10, 15);
    case Element::kBfloat16: return combine_half(g, reduction, 7, 127);
    case Element::kInt8: return combine_plain<int8_t>(g, reduction);
    case Element::kInt16: return combine_plain<int16_t>(g, reduction);
    case Element::kInt32: return combine_plain<int32_t>(g, reduction);
    case Element::kInt64: return combine_plain<int64_t>(g, reduction);
    case Element::kUint8:
    case Element::kBool: return combine_plain<uint8_t>(g, reduction);
    case Element::kUint16: return combine_plain<uint16_t>(g, reduction);
    case Element::kUint32: return combine_plain<uint32_t>(g, reduction);
    case Element::kUint64: return combine_plain<uint64_t>(g, reduction);
  }
}

}  // namespace gradring::reference

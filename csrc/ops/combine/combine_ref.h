// The reference: one element at a time, in float32 (float64 for float64, wrapping integers for integers).
#pragma once

#include <cstring>
#include <type_traits>

#include "ops/cast/half.h"
#include "ops/combine/combine.h"

namespace gradring::reference {

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

template <class Half16, float (*kWiden)(Half16) noexcept, Half16 (*kNarrow)(double) noexcept>
void combine_half(const CombineArguments& g, Reduction reduction) {
  combine<float>(
      g, reduction,
      [](const void* from, int64_t i) {
        Half16 half;
        std::memcpy(&half, static_cast<const char*>(from) + 2 * i, 2);
        return kWiden(half);
      },
      [](void* to, int64_t i, float value) {
        const Half16 half = kNarrow(static_cast<double>(value));
        std::memcpy(static_cast<char*>(to) + 2 * i, &half, 2);
      });
}

inline void combine(const CombineArguments& g, Element element, Reduction reduction) {
  switch (element) {
    case Element::kFloat32: return combine_plain<float>(g, reduction);
    case Element::kFloat64: return combine_plain<double>(g, reduction);
    case Element::kFloat16: return combine_half<Half, half_to_float, half_from>(g, reduction);
    case Element::kBfloat16: return combine_half<Bfloat, bfloat_to_float, bfloat_from>(g, reduction);
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

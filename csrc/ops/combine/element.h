// Element types and reductions of collectives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gradring {

enum class Element : uint8_t {
  kFloat32,
  kFloat64,
  kFloat16,
  kBfloat16,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kBool,
};
inline constexpr int kElements = 13;

constexpr size_t size_of(Element element) noexcept {
  constexpr uint8_t sizes[kElements] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 2, 4, 8, 1};
  return sizes[static_cast<int>(element)];
}
constexpr const char* element_name(Element element) noexcept {
  constexpr const char* names[kElements] = {"float32", "float64", "float16", "bfloat16", "int8",   "int16", "int32",
                                            "int64",   "uint8",   "uint16",  "uint32",   "uint64", "bool"};
  const auto index = static_cast<unsigned>(element);
  return index < kElements ? names[index] : "an unknown dtype";
}
constexpr bool is_float(Element element) noexcept { return element <= Element::kBfloat16; }

// The dtype of sums: float32 for float32 and for 16-bit floats, float64 for float64, and for integers, which wrap, their own.
enum class Reduction : uint8_t { kSum, kMean, kMax, kMin, kProd };
inline constexpr int kReductions = 5;

constexpr const char* reduction_name(Reduction reduction) noexcept {
  constexpr const char* names[kReductions] = {"sum", "mean", "max", "min", "prod"};
  const auto index = static_cast<unsigned>(reduction);
  return index < kReductions ? names[index] : "an unknown op";
}
// Finds a reduction by its name. Returns false if there is none.
constexpr bool reduction_named(std::string_view name, Reduction* reduction) noexcept {
  for (int i = 0; i < kReductions; ++i) {
    *reduction = static_cast<Reduction>(i);
    if (name == reduction_name(*reduction)) return true;
  }
  return false;
}

// Integers have no mean, and truth values only a maximum (or) and a minimum (and).
constexpr bool can_reduce(Element element, Reduction reduction) noexcept {
  if (is_float(element)) return true;
  if (element == Element::kBool) return reduction == Reduction::kMax || reduction == Reduction::kMin;
  return reduction != Reduction::kMean;
}

}  // namespace gradring

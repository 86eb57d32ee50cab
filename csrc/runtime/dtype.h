// Element types of arrays that come from outside.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradring {

enum class Dtype : uint8_t {
  kFloat32,
  kFloat64,
  kBool,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
};
inline constexpr int kDtypes = 11;

constexpr size_t size_of(Dtype dtype) noexcept {
  constexpr size_t sizes[kDtypes] = {4, 8, 1, 1, 2, 4, 8, 1, 2, 4, 8};
  return sizes[static_cast<int>(dtype)];
}
constexpr const char* dtype_name(Dtype dtype) noexcept {
  constexpr const char* names[kDtypes] = {"float32", "float64", "bool",   "int8",   "int16", "int32",
                                          "int64",   "uint8",   "uint16", "uint32", "uint64"};
  return names[static_cast<int>(dtype)];
}

template <class T>
inline constexpr Dtype dtype_of = Dtype::kFloat32;
template <>
inline constexpr Dtype dtype_of<double> = Dtype::kFloat64;
template <>
inline constexpr Dtype dtype_of<int64_t> = Dtype::kInt64;
template <>
inline constexpr Dtype dtype_of<int32_t> = Dtype::kInt32;

}  // namespace gradring

// Element types of arrays that come from outside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

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
  // The op cast converts to and from these, and products read and write them; no kernel computes in them.
  kFloat16,
  kBfloat16,
};
inline constexpr int kDtypes = 13;
inline constexpr Dtype kNoDtype{kDtypes};  // another dtype: it has a name for messages, and counts as bytes

constexpr size_t size_of(Dtype dtype) noexcept {
  constexpr size_t sizes[kDtypes + 1] = {4, 8, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 1};
  return sizes[static_cast<int>(dtype)];
}
// Whether these are floats of 16 bits.
constexpr bool is_narrow(Dtype dtype) noexcept { return dtype == Dtype::kFloat16 || dtype == Dtype::kBfloat16; }

constexpr const char* dtype_name(Dtype dtype) noexcept {
  constexpr const char* names[kDtypes + 1] = {"float32", "float64", "bool",     "int8",         "int16",
                                              "int32",   "int64",   "uint8",    "uint16",       "uint32",
                                              "uint64",  "float16", "bfloat16", "another dtype"};
  return names[static_cast<int>(dtype)];
}

// The dtype with this name, or kNoDtype.
constexpr Dtype dtype_named(std::string_view name) noexcept {
  int i = 0;
  while (i < kDtypes && name != dtype_name(static_cast<Dtype>(i))) ++i;
  return static_cast<Dtype>(i);
}

}  // namespace gradring

// The reference: one element at a time, through the types that the dtypes name.
#pragma once

#include <cstring>

#include "ops/cast/half.h"
#include "runtime/dtype.h"

namespace gradring::reference {

// to[0] = static_cast<To>(from[0]), where `from` may lie at any address.
template <class To, class From>
void cast_element(void* to, const void* from) {
  From value;
  std::memcpy(&value, from, sizeof value);
  const To converted = static_cast<To>(value);
  std::memcpy(to, &converted, sizeof converted);
}

template <class To>
void cast_element_from(Dtype dtype, void* to, const void* from) {
  switch (dtype) {
    case Dtype::kFloat32: return cast_element<To, float>(to, from);
    case Dtype::kFloat64: return cast_element<To, double>(to, from);
    case Dtype::kBool:
    case Dtype::kUint8: return cast_element<To, uint8_t>(to, from);
    case Dtype::kInt8: return cast_element<To, int8_t>(to, from);
    case Dtype::kInt16: return cast_element<To, int16_t>(to, from);
    case Dtype::kInt32: return cast_element<To, int32_t>(to, from);
    case Dtype::kInt64: return cast_element<To, int64_t>(to, from);
    case Dtype::kUint16: return cast_element<To, uint16_t>(to, from);
    case Dtype::kUint32: return cast_element<To, uint32_t>(to, from);
    case Dtype::kUint64: return cast_element<To, uint64_t>(to, from);
    case Dtype::kFloat16: {
      Half half;
      std::memcpy(&half, from, sizeof half);
      const float value = half_to_float(half);
      return cast_element<To, float>(to, &value);
    }
    case Dtype::kBfloat16: {
      Bfloat bfloat;
      std::memcpy(&bfloat, from, sizeof bfloat);
      const float value = bfloat_to_float(bfloat);
      return cast_element<To, float>(to, &value);
    }
    default: return;
  }
}

}  // namespace gradring::reference

#include "loader/transforms/any_cast.h"

#include <cstring>
#include <type_traits>

#include "ops/cast/half.h"

namespace gradring {

namespace {

struct Bool {
  uint8_t value;
};

// A float that the integer cannot hold is undefined in C++: go by way of int64 and the range it can hold.
template <class To, class From>
To convert(From x) noexcept {
  if constexpr (std::is_same_v<From, Half>)
    return convert<To>(half_to_float(x));
  else if constexpr (std::is_floating_point_v<From>) {
    const int64_t lowest = INT64_MIN;
    constexpr From kLimit = static_cast<From>(9223372036854775808.0);
    if (!(x >= -kLimit && x < kLimit)) {
      return x >= kLimit && x < 2 * kLimit && sizeof(To) == 8
                 ? static_cast<To>(static_cast<uint64_t>(static_cast<int64_t>(x - kLimit)) + (uint64_t{1} << 63))
                 : static_cast<To>(lowest);
    }
    return static_cast<To>(static_cast<int64_t>(x));
  } else {
    return static_cast<To>(x);
  }
}

template <class To, class From>
void cast(void* to, const void* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    From x;
    std::memcpy(&x, static_cast<const char*>(from) + i * static_cast<int64_t>(sizeof x), sizeof x);
    if constexpr (std::is_same_v<To, Bool>) {
      if constexpr (std::is_same_v<From, Half>) {
        static_cast<uint8_t*>(to)[i] = (x.bits & 0x7fff) != 0;
      } else {
        static_cast<uint8_t*>(to)[i] = x != From{0};
      }
    } else if constexpr (std::is_same_v<To, Half> && std::is_same_v<From, Half>) {
      static_cast<Half*>(to)[i] = x;
    } else if constexpr (std::is_same_v<To, Half>) {
      static_cast<Half*>(to)[i] = half_from(static_cast<double>(x));
    } else {
      static_cast<To*>(to)[i] = convert<To>(x);
    }
  }
}

template <class To>
Cast from_any(Dtype from) noexcept {
  switch (from) {
    case Dtype::kFloat32: return cast<To, float>;
    case Dtype::kFloat64: return cast<To, double>;
    case Dtype::kBool:
    case Dtype::kUint8: return cast<To, uint8_t>;
    case Dtype::kInt8: return cast<To, int8_t>;
    case Dtype::kInt16: return cast<To, int16_t>;
    case Dtype::kInt32: return cast<To, int32_t>;
    case Dtype::kInt64: return cast<To, int64_t>;
    case Dtype::kUint16: return cast<To, uint16_t>;
    case Dtype::kUint32: return cast<To, uint32_t>;
    case Dtype::kUint64: return cast<To, uint64_t>;
    case Dtype::kFloat16: return cast<To, Half>;
  }
  return nullptr;
}

}  // namespace

Cast find_any_cast(Dtype to, Dtype from) noexcept {
  switch (to) {
    case Dtype::kBool: return from_any<Bool>(from);
    case Dtype::kInt8: return from_any<int8_t>(from);
    case Dtype::kInt16: return from_any<int16_t>(from);
    case Dtype::kInt32: return from_any<int32_t>(from);
    case Dtype::kUint8: return from_any<uint8_t>(from);
    case Dtype::kUint16: return from_any<uint16_t>(from);
    case Dtype::kUint32: return from_any<uint32_t>(from);
    case Dtype::kUint64: return from_any<uint64_t>(from);
    case Dtype::kFloat16: return from_any<Half>(from);
    default: return find_cast(to, from);
  }
}

}  // namespace gradring

#include "ops/cast/any_cast.h"

#include <cstring>
#include <type_traits>

#include "ops/cast/half.h"

namespace gradring {

namespace {

struct Bool {
  uint8_t value;
};

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, Half> || std::is_same_v<T, Bfloat>;

float to_float(Half x) noexcept { return half_to_float(x); }
float to_float(Bfloat x) noexcept { return bfloat_to_float(x); }

template <class To>
To rounded(double x) noexcept {
  if constexpr (std::is_same_v<To, Half>) {
    return half_from(x);
  } else {
    return bfloat_from(x);
  }
}

// Returns a double that rounds to a 16-bit float as x itself does. In an integer of more than 52 bits, one bit replaces
// the lowest 12 and says whether any of them is set (rounding to odd), so that nothing is rounded twice.
template <class From>
double as_double(From x) noexcept {
  if constexpr (kIsHalf<From>) {
    return to_float(x);
  } else if constexpr (std::is_integral_v<From> && sizeof(From) == 8) {
    constexpr From kLow = 0xfff;
    if (x < (From{1} << 52) && (!std::is_signed_v<From> || x > -static_cast<From>(int64_t{1} << 52))) {
      return static_cast<double>(x);
    }
    const From odd = (x & kLow) != 0 ? kLow + 1 : 0;
    return static_cast<double>((x & ~kLow) | odd);
  } else {
    return static_cast<double>(x);
  }
}

// Converting a float that the integer type cannot hold is undefined in C++, so clamp it to the range of int64 first.
template <class To, class From>
To convert(From x) noexcept {
  if constexpr (kIsHalf<From>)
    return convert<To>(to_float(x));
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
      if constexpr (kIsHalf<From>) {
        static_cast<uint8_t*>(to)[i] = (x.bits & 0x7fff) != 0;
      } else {
        static_cast<uint8_t*>(to)[i] = x != From{0};
      }
    } else if constexpr (std::is_same_v<To, From>) {
      static_cast<To*>(to)[i] = x;
    } else if constexpr (kIsHalf<To>) {
      static_cast<To*>(to)[i] = rounded<To>(as_double(x));
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
    case Dtype::kBfloat16: return cast<To, Bfloat>;
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
    case Dtype::kFloat16: return from == Dtype::kFloat32 ? find_cast(to, from) : from_any<Half>(from);
    case Dtype::kBfloat16: return from == Dtype::kFloat32 ? find_cast(to, from) : from_any<Bfloat>(from);
    default: return find_cast(to, from);
  }
}

}  // namespace gradring

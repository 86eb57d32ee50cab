// Converts 16-bit floats one by one, in the obvious way, and exactly. cast_cpu.cc has fast versions.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace gradring {

// IEEE 754 binary16: a sign, five bits of exponent (bias 15), ten bits of fraction.
struct Half {
  uint16_t bits = 0;
};

inline float half_to_float(Half half) noexcept {
  const int exponent = half.bits >> 10 & 31;
  const int fraction = half.bits & 1023;
  float value;
  if (exponent == 31) {
    value = fraction == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    value = std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  }
  return half.bits >> 15 ? -value : value;
}

// Rounds to the nearest half, or to the even one of two that are equally near. It rounds only once.
inline Half half_from(double x) noexcept {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const double size = std::fabs(x);
  if (std::isnan(x)) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (size >= 65520) return {static_cast<uint16_t>(sign | 0x7c00)};  // halfway from the largest half, 65504, to 65536
  if (size < 0x1p-14) return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(size * 0x1p24)))};
  const int exponent = std::ilogb(size);
  // The fraction is in [1024, 2048]: if it rounds up to 2048, the addition carries into the exponent.
  const auto significand = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return {static_cast<uint16_t>(sign | (((exponent + 15) << 10) + significand - 1024))};
}

// The upper half of a float: a sign, eight bits of exponent (bias 127), seven bits of fraction.
struct Bfloat {
  uint16_t bits = 0;
};

inline float bfloat_to_float(Bfloat bfloat) noexcept {
  const int exponent = bfloat.bits >> 7 & 255;
  const int fraction = bfloat.bits & 127;
  float value;
  if (exponent == 255) {
    value = fraction == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(static_cast<float>(fraction), -133);
  } else {
    value = std::ldexp(static_cast<float>(128 + fraction), exponent - 134);
  }
  return bfloat.bits >> 15 ? -value : value;
}

// Rounds in the same way as half_from.
inline Bfloat bfloat_from(double x) noexcept {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const double size = std::fabs(x);
  if (std::isnan(x)) return {static_cast<uint16_t>(sign | 0x7fc0)};
  if (size >= 0x1.ffp127) return {static_cast<uint16_t>(sign | 0x7f80)};
  if (size < 0x1p-126) return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(size * 0x1p133)))};
  const int exponent = std::ilogb(size);
  const auto significand = static_cast<int>(std::nearbyint(std::ldexp(size, 7 - exponent)));
  return {static_cast<uint16_t>(sign | (((exponent + 127) << 7) + significand - 128))};
}

}  // namespace gradring

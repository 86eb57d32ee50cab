#include "ops/cast/cast.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "ops/cast/cast_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

constexpr Dtype kFrom[] = {Dtype::kFloat32, Dtype::kFloat64, Dtype::kUint8,   Dtype::kInt8,   Dtype::kInt16,
                           Dtype::kInt32,   Dtype::kInt64,   Dtype::kBool,    Dtype::kUint16, Dtype::kUint32,
                           Dtype::kUint64,  Dtype::kFloat16, Dtype::kBfloat16};

bool is_floating(Dtype dtype) { return dtype == Dtype::kFloat32 || dtype == Dtype::kFloat64; }

// Returns the bytes of `count` values: random bits for integers, and for floats normal numbers, which every dtype can
// hold.
std::vector<std::byte> random_values(Dtype dtype, int64_t count) {
  std::vector<std::byte> bytes(static_cast<size_t>(count) * size_of(dtype));
  const auto fill = [&](const auto& values) {
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  };
  if (dtype == Dtype::kFloat32) {
    fill(normal<float>(count, 1000));
  } else if (dtype == Dtype::kFloat64) {
    fill(normal<double>(count, 1000));
  } else if (dtype == Dtype::kFloat16) {
    std::vector<Half> halves;
    for (float x : normal<float>(count, 1000)) halves.push_back(half_from(x));
    fill(halves);
  } else if (dtype == Dtype::kBfloat16) {
    std::vector<Bfloat> bfloats;
    for (float x : normal<float>(count, 1000)) bfloats.push_back(bfloat_from(x));
    fill(bfloats);
  } else {
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(uniform(0, dtype == Dtype::kBool ? 1 : 255));
  }
  return bytes;
}

template <class To>
void check(Dtype to, Dtype from, int64_t count, size_t offset) {
  CAPTURE(static_cast<int>(to));
  CAPTURE(static_cast<int>(from));
  CAPTURE(count);
  const Cast cast = find_cast(to, from);
  REQUIRE((cast != nullptr));
  const std::vector<std::byte> values = random_values(from, count);
  std::vector<std::byte> unaligned(values.size() + offset);
  if (!values.empty()) std::memcpy(unaligned.data() + offset, values.data(), values.size());
  std::vector<To> got(static_cast<size_t>(count) + 1, To(7)), expected(got);
  cast(got.data(), unaligned.data() + offset, count);
  for (int64_t i = 0; i < count; ++i) {
    reference::cast_element_from<To>(from, &expected[static_cast<size_t>(i)],
                                     values.data() + static_cast<size_t>(i) * size_of(from));
  }
  REQUIRE(std::memcmp(got.data(), expected.data(), got.size() * sizeof(To)) == 0);
}

}  // namespace

TEST_CASE("every pair of dtypes converts like the reference, from any address") {
  for_each_isa([] {
    for (Dtype from : kFrom) {
      for (int64_t count : {0, 1, 3, 15, 16, 17, 31, 64, 101}) {
        for (size_t offset : {size_t{0}, size_t{1}, size_t{3}}) {
          check<float>(Dtype::kFloat32, from, count, offset);
          check<double>(Dtype::kFloat64, from, count, offset);
          check<int64_t>(Dtype::kInt64, from, count, offset);
        }
      }
    }
  });
}

TEST_CASE("floats keep their NaN and infinities, and large integers round to the nearest") {
  for_each_isa([] {
    const double values[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -0.0,
                             1e300, 1e-320};
    float got[5];
    find_cast(Dtype::kFloat32, Dtype::kFloat64)(got, values, 5);
    CHECK(got[0] != got[0]);
    CHECK(got[1] == std::numeric_limits<float>::infinity());
    CHECK((got[2] == 0 && std::signbit(got[2])));
    CHECK(got[3] == std::numeric_limits<float>::infinity());
    CHECK(got[4] == 0);
    const int64_t large[] = {16777217, -16777217, 16777219, std::numeric_limits<int64_t>::max()};
    find_cast(Dtype::kFloat32, Dtype::kInt64)(got, large, 4);
    CHECK(got[0] == 16777216.0F);
    CHECK(got[1] == -16777216.0F);
    CHECK(got[2] == 16777220.0F);
    CHECK(got[3] == 9223372036854775808.0F);
  });
}

TEST_CASE("other targets have a kernel of their own from floats to 16-bit floats alone") {
  for (Dtype to : kFrom) {
    if (is_floating(to) || to == Dtype::kInt64) continue;
    const bool narrow = to == Dtype::kFloat16 || to == Dtype::kBfloat16;
    for (Dtype from : kFrom) CHECK((find_cast(to, from) != nullptr) == (narrow && from == Dtype::kFloat32));
  }
}

TEST_CASE("floats round to the nearest 16-bit float, at every instruction set") {
  constexpr int64_t kCount = 4099;
  std::vector<float> values(kCount);
  for (float& value : values) {
    const auto bits = static_cast<uint32_t>(uniform(0, 65535)) << 16 | static_cast<uint32_t>(uniform(0, 3)) << 14 |
                      static_cast<uint32_t>(uniform(0, 2));  // values near the ties of bfloat16, of any exponent
    std::memcpy(&value, &bits, sizeof bits);
    if (uniform(0, 1) == 0) value = std::ldexp(normal<float>(1, 1)[0], static_cast<int>(uniform(-26, 16)));
  }
  for_each_isa([&] {
    std::vector<uint16_t> halves(kCount), bfloats(kCount);
    find_cast(Dtype::kFloat16, Dtype::kFloat32)(halves.data(), values.data(), kCount);
    find_cast(Dtype::kBfloat16, Dtype::kFloat32)(bfloats.data(), values.data(), kCount);
    for (size_t i = 0; i < kCount; ++i) {
      CAPTURE(values[i]);
      if (values[i] != values[i]) {
        REQUIRE((halves[i] & 0x7fff) > 0x7c00);
        REQUIRE((bfloats[i] & 0x7fff) > 0x7f80);
        continue;
      }
      REQUIRE(halves[i] == half_from(values[i]).bits);
      REQUIRE(bfloats[i] == bfloat_from(values[i]).bits);
    }
  });
}

TEST_CASE("every half float converts to the float of the same value, at every instruction set") {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  for_each_isa([&] {
    for (size_t first : {size_t{0}, size_t{1}, size_t{5}, size_t{13}}) {
      const size_t count = halves.size() - first;
      std::vector<float> got(count, 7);
      std::vector<double> wide(count, 7);
      find_cast(Dtype::kFloat32, Dtype::kFloat16)(got.data(), halves.data() + first, static_cast<int64_t>(count));
      find_cast(Dtype::kFloat64, Dtype::kFloat16)(wide.data(), halves.data() + first, static_cast<int64_t>(count));
      for (size_t i = 0; i < count; ++i) {
        const float expected = half_to_float({halves[first + i]});
        CAPTURE(halves[first + i]);
        if (expected != expected) {
          REQUIRE(got[i] != got[i]);
          REQUIRE(wide[i] != wide[i]);
          continue;
        }
        REQUIRE((got[i] == expected && std::signbit(got[i]) == std::signbit(expected)));
        REQUIRE((wide[i] == expected && std::signbit(wide[i]) == std::signbit(expected)));
      }
    }
  });
}

TEST_CASE("a number becomes the nearest half float, and of two equally near the even one") {
  for (uint32_t i = 0; i < 0x7c00; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const double here = half_to_float({bits});
    const double next = i + 1 == 0x7c00 ? 65536.0 : double{half_to_float({static_cast<uint16_t>(i + 1)})};
    const double middle = (here + next) / 2;
    CAPTURE(i);
    const auto above = static_cast<uint16_t>(i + 1);
    for (uint16_t sign : {uint16_t{0}, uint16_t{0x8000}}) {
      const double s = sign ? -1 : 1;
      REQUIRE(half_from(s * here).bits == (sign | bits));
      REQUIRE(half_from(s * middle).bits == (sign | (i % 2 == 0 ? bits : above)));
      REQUIRE(half_from(s * std::nextafter(middle, 0)).bits == (sign | bits));
      REQUIRE(half_from(s * std::nextafter(middle, 1e9)).bits == (sign | above));
    }
  }
  CHECK(half_from(std::numeric_limits<double>::infinity()).bits == 0x7c00);
  CHECK(half_from(-1e300).bits == 0xfc00);
  CHECK((half_from(std::numeric_limits<double>::quiet_NaN()).bits & 0x7fff) > 0x7c00);
}

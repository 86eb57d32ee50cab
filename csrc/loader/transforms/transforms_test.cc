#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "loader/scratch.h"
#include "loader/transforms/image.h"
#include "loader/transforms/plan.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// Rounds to float. The compiler cannot fuse this with other operations.
float rounded(float x) {
  volatile float held = x;
  return held;
}

// Runs a plan on one row that ends where its memory ends, so that a sanitizer sees every access beyond.
template <class To, class From>
std::vector<To> run(const RowPlan& plan, const std::vector<From>& row, const RowKey& key = {}, size_t offset = 0) {
  const size_t bytes = row.size() * sizeof(From);
  const std::unique_ptr<std::byte[]> from(new std::byte[offset + bytes]);
  std::memcpy(from.get() + offset, row.data(), bytes);
  const Scratch scratch(plan.scratch_bytes());
  std::vector<To> to(plan.output().row_bytes() / sizeof(To));
  REQUIRE(plan.run(from.get() + offset, reinterpret_cast<std::byte*>(to.data()), key, scratch.data()).ok());
  return to;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

std::vector<uint8_t> random_bytes(int64_t count) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_bits()());
  return bytes;
}

FieldSpec field(Dtype dtype, std::vector<int64_t> shape) { return {"x", dtype, std::move(shape)}; }

template <class From>
void check_arithmetic(Dtype dtype, const std::vector<From>& row, size_t offset) {
  const auto n = static_cast<int64_t>(row.size());
  std::vector<double> mean, std;
  for (int64_t i = 0; i < n; ++i) {
    mean.push_back(static_cast<double>(i % 7) * 0.1 + 0.05);
    std.push_back(static_cast<double>(i % 5) * 0.3 + 0.17);
  }
  const float a = 1.0f / 255, b = 0.125f;
  std::vector<float> scaled, normalized, both;
  for (size_t i = 0; i < row.size(); ++i) {
    const auto x = static_cast<float>(row[i]);
    const auto m = static_cast<float>(mean[i]), s = static_cast<float>(std[i]);
    scaled.push_back(rounded(rounded(x * a) + b));
    normalized.push_back(rounded(rounded(x - 0.5f) / 0.3f));
    both.push_back(rounded(rounded(rounded(x * a) - m) / s));
  }
  const FieldSpec spec = field(dtype, {n});
  CHECK(same_bits(run<float>(RowPlan(spec, {ScaleStep{1.0 / 255, 0.125}}, 0), row, {}, offset), scaled));
  CHECK(same_bits(run<float>(RowPlan(spec, {NormalizeStep{{0.5}, {0.3}}}, 0), row, {}, offset), normalized));
  CHECK(same_bits(run<float>(RowPlan(spec, {ScaleStep{1.0 / 255, 0}, NormalizeStep{mean, std}}, 0), row, {}, offset),
                  both));
}

struct Image {
  int64_t height, width, channels;
};

}  // namespace

TEST_CASE("arithmetic is rounded operation by operation, at every ISA level and length") {
  for_each_isa([] {
    for (int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 31, 63, 64, 65, 100, 127, 784, 1025}) {
      for (size_t offset : {size_t{0}, size_t{1}}) {
        check_arithmetic(Dtype::kUint8, random_bytes(n), offset);
        check_arithmetic(Dtype::kFloat32, normal<float>(n, 100), offset);
      }
    }
  });
}

TEST_CASE("dividing every byte by any divisor gives the quotient's bits") {
  std::vector<uint8_t> bytes(256);
  for (size_t i = 0; i < 256; ++i) bytes[i] = static_cast<uint8_t>(i);
  for_each_isa([&] {
    for (int round = 0; round < 300; ++round) {
      const double mean = std::ldexp(static_cast<double>(random_bits()() >> 11), -45);
      const double divisor = std::ldexp(static_cast<double>(random_bits()() >> 11) + 1, -60 + round % 40);
      std::vector<float> expected;
      for (uint8_t byte : bytes) {
        expected.push_back(
            rounded(rounded(static_cast<float>(byte) - static_cast<float>(mean)) / static_cast<float>(divisor)));
      }
      const RowPlan plan(field(Dtype::kUint8, {256}), {NormalizeStep{{mean}, {divisor}}}, 0);
      REQUIRE(same_bits(run<float>(plan, bytes), expected));
    }
  });
}

TEST_CASE("crops, flips and what follows are one window, at every ISA level") {
  for_each_isa([] {
    for (const Image image : {Image{5, 7, 1}, Image{9, 4, 3}, Image{32, 32, 3}, Image{6, 8, 4}, Image{3, 70, 2}}) {
      const auto row = random_bytes(image.height * image.width * image.channels);
      const FieldSpec spec = field(Dtype::kUint8, {image.height, image.width, image.channels});
      CropStep crop{image.height - 1, image.width - 2, 3, ImageLayout::kHwc};
      FlipStep flip{0.5, false, ImageLayout::kHwc};
      const RowPlan plan(spec, {crop, flip, ScaleStep{0.5, 0}}, 4);
      CHECK(plan.names() == std::vector<std::string>{"RandomCrop+RandomFlip+Scale"});
      for (int64_t sample = 0; sample < 20; ++sample) {
        const RowKey key{9, 3, sample};
        const auto place = random_words(key, {4, 0});
        const int64_t down = uniform(place[0], image.height + 6 - crop.height + 1) - 3;
        const int64_t right = uniform(place[1], image.width + 6 - crop.width + 1) - 3;
        const bool flips = random_words(key, {4, 1})[0] < (uint64_t{1} << 31);
        std::vector<float> expected;
        for (int64_t y = 0; y < crop.height; ++y) {
          for (int64_t x = 0; x < crop.width; ++x) {
            const int64_t from_y = y + down, from_x = (flips ? crop.width - 1 - x : x) + right;
            const bool inside = from_y >= 0 && from_y < image.height && from_x >= 0 && from_x < image.width;
            for (int64_t c = 0; c < image.channels; ++c) {
              const auto at = static_cast<size_t>((from_y * image.width + from_x) * image.channels + c);
              expected.push_back(inside ? static_cast<float>(row[at]) * 0.5f : 0.0f);
            }
          }
        }
        REQUIRE(same_bits(run<float>(plan, row, key), expected));
      }
    }
  });
}

TEST_CASE("a timed run gives the same row and a time for every stage") {
  const RowPlan plan(field(Dtype::kUint8, {4, 6, 3}), {OneHotStep{256}, ScaleStep{2, 0}, CastStep{Dtype::kInt16}}, 0);
  CHECK(plan.names() == std::vector<std::string>{"OneHot", "Scale", "Cast"});
  const auto row = random_bytes(72);
  const Scratch scratch(plan.scratch_bytes());
  std::vector<int16_t> to(72 * 256);
  std::vector<uint64_t> ns(3);
  for (int i = 0; i < 50; ++i) {
    REQUIRE(plan.run(reinterpret_cast<const std::byte*>(row.data()), reinterpret_cast<std::byte*>(to.data()), {},
                     scratch.data(), ns.data())
                .ok());
  }
  CHECK(same_bits(to, run<int16_t>(plan, row)));
  for (uint64_t each : ns) CHECK(each > 0);
}

TEST_CASE("a label out of range is named") {
  const RowPlan plan(field(Dtype::kInt64, {}), {OneHotStep{3}}, 0);
  std::vector<std::byte> to(plan.output().row_bytes());
  const Scratch scratch(plan.scratch_bytes());
  for (int64_t label : {int64_t{-1}, int64_t{3}, INT64_MAX, INT64_MIN}) {
    const Status status = plan.run(reinterpret_cast<const std::byte*>(&label), to.data(), {}, scratch.data());
    CHECK(status.code() == Code::kOutOfRange);
    CHECK(std::string(status.message()).find(std::to_string(label)) != std::string::npos);
  }
}

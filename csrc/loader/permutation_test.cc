#include "loader/permutation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace gradring {

TEST_CASE("every position has its own sample, for any n") {
  for (uint64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 100, 1000, 1023, 1025, 4097, 60000, 65537}) {
    CAPTURE(n);
    const Permutation order(n, 7, n);
    std::vector<int64_t> filled(n);
    order.fill(0, static_cast<int64_t>(n), filled.data());
    std::vector<int> seen(n, 0);
    for (uint64_t i = 0; i < n; ++i) {
      REQUIRE(order(i) < n);
      REQUIRE(static_cast<uint64_t>(filled[i]) == order(i));
      ++seen[order(i)];
    }
    for (int count : seen) REQUIRE(count == 1);
  }
}

// The formula of permutation.h, written out.
uint64_t reference(uint64_t n, uint64_t seed, uint64_t epoch, uint64_t position) {
  const auto mix = [](uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  };
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ull;
  int bits = 6;
  while (bits < 64 && (n - 1) >> bits != 0) ++bits;
  const int low_bits = bits / 2;
  const uint64_t low_mask = (uint64_t{1} << low_bits) - 1, high_mask = (uint64_t{1} << (bits - low_bits)) - 1;
  const uint64_t state = mix(seed + kGolden) ^ mix(mix(epoch + 0x632be59bd9b4e019ull) + n);
  uint64_t x = position;
  do {
    uint64_t halves[2] = {x >> low_bits, x & low_mask};
    for (uint64_t round = 0; round < 8; ++round) {
      const uint64_t key = mix(state + (round + 1) * kGolden);
      halves[round % 2] ^= mix(halves[1 - round % 2] + key) & (round % 2 == 0 ? high_mask : low_mask);
    }
    x = halves[0] << low_bits | halves[1];
  } while (x >= n);
  return x;
}

TEST_CASE("tables and chunks give what the formula gives") {
  for (uint64_t n : {1, 2, 63, 64, 65, 255, 256, 257, 1440, 2048, 2049, 60000, 65536, 65537, 1000003}) {
    CAPTURE(n);
    const Permutation order(n, n * 31, 5);
    for (uint64_t first : {uint64_t{0}, n / 3}) {
      const auto count = static_cast<int64_t>(std::min<uint64_t>(n - first, 700));
      std::vector<int64_t> out(static_cast<size_t>(count));
      order.fill(first, count, out.data());
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t position = first + static_cast<uint64_t>(i);
        REQUIRE(static_cast<uint64_t>(out[static_cast<size_t>(i)]) == reference(n, n * 31, 5, position));
        REQUIRE(order(position) == reference(n, n * 31, 5, position));
      }
    }
  }
}

TEST_CASE("huge n stay in range") {
  const uint64_t n = (uint64_t{1} << 62) + 12345;
  const Permutation order(n, 1, 2);
  for (uint64_t i = 0; i < 1000; ++i) CHECK(order(n - 1 - i) < n);
}

TEST_CASE("the order depends on seed, epoch and nothing else") {
  const uint64_t n = 1000;
  const Permutation order(n, 3, 4), same(n, 3, 4), seed(n, 5, 4), epoch(n, 3, 5);
  int equal_seed = 0, equal_epoch = 0, fixed = 0;
  for (uint64_t i = 0; i < n; ++i) {
    CHECK(order(i) == same(i));
    equal_seed += order(i) == seed(i);
    equal_epoch += order(i) == epoch(i);
    fixed += order(i) == i;
  }
  // Expected: one each; ten or more has a probability of about 1e-7.
  CHECK(equal_seed < 10);
  CHECK(equal_epoch < 10);
  CHECK(fixed < 10);
}

// Pearson's statistic over (position, sample) pairs is near its degrees of freedom, (n-1)^2, with deviation
// sqrt(2) (n-1): five deviations are allowed.
TEST_CASE("samples fall uniformly on positions") {
  for (uint64_t n : {2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 33, 64}) {
    CAPTURE(n);
    const int trials = 40000;
    std::vector<int> counts(n * n, 0);
    for (int t = 0; t < trials; ++t) {
      const Permutation order(n, 11, static_cast<uint64_t>(t));
      for (uint64_t i = 0; i < n; ++i) ++counts[i * n + order(i)];
    }
    const double expected = static_cast<double>(trials) / static_cast<double>(n);
    double statistic = 0;
    for (int count : counts) statistic += (count - expected) * (count - expected) / expected;
    const double freedom = static_cast<double>((n - 1) * (n - 1));
    CHECK(std::abs(statistic - freedom) < 5 * std::sqrt(2 * freedom) + 5);
  }
}

// Neighbours in the order must not be neighbours in the source more often than by chance: pairs of samples at
// consecutive positions are uniform over ordered pairs.
TEST_CASE("consecutive samples are independent") {
  const uint64_t n = 12;
  const int trials = 60000;
  std::vector<int> counts(n * n, 0);
  for (int t = 0; t < trials; ++t) {
    const Permutation order(n, 5, static_cast<uint64_t>(t));
    const uint64_t at = static_cast<uint64_t>(t) % (n - 1);
    ++counts[order(at) * n + order(at + 1)];
  }
  const double expected = static_cast<double>(trials) / static_cast<double>(n * (n - 1));
  double statistic = 0;
  for (uint64_t i = 0; i < n; ++i) {
    for (uint64_t j = 0; j < n; ++j) {
      if (i == j) {
        CHECK(counts[i * n + j] == 0);
      } else {
        const double gap = counts[i * n + j] - expected;
        statistic += gap * gap / expected;
      }
    }
  }
  const double freedom = static_cast<double>(n * (n - 1) - 1);
  CHECK(std::abs(statistic - freedom) < 5 * std::sqrt(2 * freedom));
}

}  // namespace gradring

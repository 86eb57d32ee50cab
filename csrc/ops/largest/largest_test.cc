#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "ops/largest/largest_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
std::vector<T> run(const std::vector<T>& x, int lanes) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<T> y(static_cast<size_t>(largest_blocks(n)) + 1, T(7));
  const LargestArguments<T> g{n, x.data(), y.data()};
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { largest<T>(lane, g); });
  CHECK(y.back() == T(7));
  y.pop_back();
  return y;
}

template <class T>
void check(const std::vector<T>& x) {
  const auto n = static_cast<int64_t>(x.size());
  for (int lanes : {1, 2, 5}) {
    const std::vector<T> y = run(x, lanes);
    for (int64_t b = 0; b < largest_blocks(n); ++b) {
      const T want = reference::largest<T>({n, x.data(), nullptr}, b), got = y[static_cast<size_t>(b)];
      REQUIRE((std::isnan(want) ? std::isnan(got) : got == want));
    }
  }
}

template <class T>
void check_all() {
  for (int64_t n : {0, 1, 3, 15, 16, 17, 63, 64, 65, 4095, 4096, 4097, 20000}) {
    check(normal<T>(n, 1e3));
    check(std::vector<T>(static_cast<size_t>(n), T(-0.0)));
    for (const T special :
         {std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN(),
          -std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::denorm_min(), -std::numeric_limits<T>::max()}) {
      if (n == 0) continue;
      std::vector<T> x = normal<T>(n, 1e-30);
      x[static_cast<size_t>(uniform(0, n - 1))] = special;
      check(x);
    }
  }
}

}  // namespace

TEST_CASE("largest finds the largest magnitude, infinities and NaNs at any place") {
  for_each_isa([] {
    check_all<float>();
    check_all<double>();
  });
}

#include "ops/norm/norm.h"

#include <doctest/doctest.h>

#include <limits>

#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
double run(const std::vector<T>& x, int lanes) {
  double result = -1;
  const SumOfSquaresArguments<T> g{static_cast<int64_t>(x.size()), x.data(), &result};
  Team& team = testing::team_of(lanes);
  const ScratchBytes scratch = sum_of_squares_scratch<T>(g, lanes);
  team.reserve(scratch.per_lane, scratch.shared);
  team.run(lanes, [&](const Lane& lane) { sum_of_squares<T>(lane, g); });
  return result;
}

template <class T>
void check_norm(int64_t n) {
  const auto x = normal<T>(n);
  long double want = 0;
  for (T value : x) want += static_cast<long double>(value) * static_cast<long double>(value);
  const double got = run(x, 1);
  CHECK(std::abs(got - static_cast<double>(want)) <= 1e-13 * static_cast<double>(want));
  for (int lanes : {2, 3, 7}) CHECK(run(x, lanes) == got);
}

}  // namespace

TEST_CASE("sum_of_squares is exact to double, with the same bits for any number of lanes") {
  for_each_isa([] {
    for (int64_t n : {0, 1, 31, 32, 33, 4096, 4097, 100001}) {
      check_norm<float>(n);
      check_norm<double>(n);
    }
    CHECK(run<float>({3e38f, 3e38f}, 1) == doctest::Approx(2 * 9e76));  // no overflow
    CHECK(std::isnan(run<float>({1, std::numeric_limits<float>::quiet_NaN()}, 1)));
    CHECK(std::isinf(run<float>({1, std::numeric_limits<float>::infinity()}, 1)));
  });
}

TEST_CASE("clip_factor leaves small norms alone and keeps NaN") {
  CHECK(clip_factor(0, 1) == 1);
  CHECK(clip_factor(0.25, 1) == 1);
  CHECK(clip_factor(4, 1) == doctest::Approx(0.5).epsilon(1e-6));
  CHECK(std::isnan(clip_factor(std::nan(""), 1)));
}

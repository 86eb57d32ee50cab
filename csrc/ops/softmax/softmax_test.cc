#include "ops/softmax/softmax.h"

#include <doctest/doctest.h>

#include <limits>

#include "ops/softmax/softmax_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
void check(int64_t rows, int64_t columns, bool logarithm, int lanes, double scale) {
  const auto x = normal<T>(rows * columns, scale), dy = normal<T>(rows * columns);
  std::vector<T> y(x.size() + 1, T(77)), dx(x.size() + 1, T(77));
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) {
    softmax<T>(lane, {rows, columns, x.data(), y.data(), logarithm});
    lane.barrier();
    softmax_vjp<T>(lane, {rows, columns, dy.data(), y.data(), dx.data(), logarithm});
  });
  const double eps = std::numeric_limits<T>::epsilon();
  CAPTURE(columns);
  for (int64_t i = 0; i < rows; ++i) {
    const T* row = x.data() + i * columns;
    const T* y_row = y.data() + i * columns;
    const T* dy_row = dy.data() + i * columns;
    const auto want = reference::softmax(row, columns, logarithm);
    const auto want_dx = reference::softmax_vjp(dy_row, y_row, columns, logarithm);
    for (int64_t j = 0; j < columns; ++j) {
      const auto at = static_cast<size_t>(j);
      // The rounding error of exp's argument grows with the argument, here and in the reference; among thousands of
      // normal numbers the largest and the smallest are about nine standard deviations apart.
      REQUIRE(std::abs(y_row[j] - want[at]) <= eps * (8 + 10 * scale) * (std::abs(want[at]) + (logarithm ? 1 : 1e-3)));
      const T got = dx[static_cast<size_t>(i * columns + j)];
      REQUIRE(std::abs(got - want_dx[at]) <= eps * (32 + 16 * std::sqrt(double(columns))));
    }
  }
  CHECK(y.back() == T(77));
  CHECK(dx.back() == T(77));
}

template <class T>
void check_special_values() {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (int64_t columns : {3, 100}) {
    std::vector<T> x(static_cast<size_t>(columns), T(0)), y(x.size());
    const auto run = [&](bool logarithm) { softmax<T>(Lane{}, {1, columns, x.data(), y.data(), logarithm}); };
    x[1] = -inf;
    run(false);
    CHECK(y[1] == 0);
    CHECK(y[0] > 0);
    run(true);
    CHECK(y[1] == -inf);
    x[1] = nan;
    run(false);
    for (T value : y) CHECK(std::isnan(value));
    x[1] = inf;
    run(false);
    CHECK(std::isnan(y[1]));
    for (T& value : x) value = -inf;
    run(false);
    for (T value : y) CHECK(std::isnan(value));
    for (T& value : x) value = std::numeric_limits<T>::max();
    run(false);
    for (T value : y) CHECK(value == doctest::Approx(1.0 / static_cast<double>(columns)));
  }
}

}  // namespace

TEST_CASE("softmax, log_softmax and their vjps match the reference") {
  for_each_isa([] {
    for (bool logarithm : {false, true}) {
      for (int64_t columns : {1, 2, 7, 8, 9, 10, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 1000}) {
        check<float>(19, columns, logarithm, 1, 1);
        check<double>(5, columns, logarithm, 1, 1);
        check<float>(70, columns, logarithm, 3, 10);
      }
      check<float>(0, 10, logarithm, 2, 1);
      check<float>(3, 0, logarithm, 1, 1);
    }
  });
}

TEST_CASE("softmax treats infinities and NaN as the formula does") {
  for_each_isa([] {
    check_special_values<float>();
    check_special_values<double>();
  });
}

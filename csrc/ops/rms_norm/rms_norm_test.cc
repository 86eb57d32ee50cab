#include "ops/rms_norm/rms_norm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "ops/rms_norm/rms_norm_ref.h"
#include "ops/testing.h"

using namespace gradring;
using gradring::testing::normal;

namespace {

template <class T>
struct Case {
  int64_t rows, columns;
  bool weighted;
  std::vector<T> x, dy, weight;

  Case(int64_t r, int64_t c, bool w)
      : rows(r), columns(c), weighted(w), x(normal<T>(r * c)), dy(normal<T>(r * c)), weight(normal<T>(c)) {}
};

template <class T>
std::vector<T> forward(const Case<T>& c, int lanes) {
  std::vector<T> y(c.x.size() + 1, T(77));
  RmsNormArguments<T> g;
  g.rows = c.rows, g.columns = c.columns, g.x = c.x.data(), g.y = y.data();
  if (c.weighted) g.weight = c.weight.data();
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { rms_norm(lane, g); });
  REQUIRE(y.back() == T(77));
  y.pop_back();
  return y;
}

// Returns dx and dweight one after another.
template <class T>
std::vector<T> backward(const Case<T>& c, int lanes, bool wants_dx = true, bool wants_dweight = true) {
  const size_t n = c.x.size(), k = static_cast<size_t>(c.columns);
  std::vector<T> results(n + k + 1, T(77));
  RmsNormVjpArguments<T> g;
  g.rows = c.rows, g.columns = c.columns, g.dy = c.dy.data(), g.x = c.x.data();
  if (wants_dx) g.dx = results.data();
  if (wants_dweight) g.dweight = results.data() + n;
  if (c.weighted) g.weight = c.weight.data();
  Team& team = testing::team_of(lanes);
  const ScratchBytes scratch = rms_norm_vjp_scratch(c.rows, c.columns, sizeof(T));
  team.reserve(scratch.per_lane, scratch.shared);
  team.run(lanes, [&](const Lane& lane) { rms_norm_vjp(lane, g); });
  REQUIRE(results.back() == T(77));
  results.pop_back();
  return results;
}

template <class T>
void check(const Case<T>& c) {
  CAPTURE(c.rows);
  CAPTURE(c.columns);
  const double bound = 40 * double(std::numeric_limits<T>::epsilon());
  const T* weight = c.weighted ? c.weight.data() : nullptr;
  const std::vector<T> y = forward(c, 1), results = backward(c, 1);
  std::vector<double> dweight(static_cast<size_t>(c.columns)), magnitude(dweight);
  for (int64_t i = 0; i < c.rows; ++i) {
    const T* x = c.x.data() + i * c.columns;
    const T* dy = c.dy.data() + i * c.columns;
    const auto want = reference::rms_norm(x, weight, c.columns, 1e-6);
    const auto dx = reference::rms_norm_vjp(dy, x, weight, c.columns, 1e-6, &dweight);
    const double rms = reference::root_mean_square(x, c.columns, 1e-6);
    double largest = 0;  // the largest term of dx: the error is relative to it, because terms cancel
    for (int64_t j = 0; j < c.columns; ++j) {
      largest = std::fmax(largest, std::fabs(dy[j] * (weight ? double(weight[j]) : 1)) / rms);
      magnitude[size_t(j)] += std::fabs(dy[j] * x[j]) / rms;
    }
    for (int64_t j = 0; j < c.columns; ++j) {
      const auto at = static_cast<size_t>(i * c.columns + j);
      REQUIRE(std::fabs(y[at] - want[size_t(j)]) <= bound * std::fabs(want[size_t(j)]));
      const double scale = largest * (1 + std::fabs(x[j]) / rms * (1 + std::sqrt(double(c.columns))));
      REQUIRE(std::fabs(results[at] - dx[size_t(j)]) <= bound * scale);
    }
  }
  for (size_t j = 0; j < static_cast<size_t>(c.columns); ++j) {
    REQUIRE(std::fabs(results[c.x.size() + j] - dweight[j]) <= bound * (1 + double(c.rows) / 32) * magnitude[j]);
  }
}

template <class T>
void check_sizes() {
  for (const int64_t columns : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 130}) {
    for (const int64_t rows : {0, 1, 5, 31, 32, 33, 65}) check(Case<T>(rows, columns, (rows + columns) % 3 != 0));
  }
}

}  // namespace

TEST_CASE("rms_norm agrees with the reference at every level, for odd sizes") {
  testing::for_each_isa([] {
    check_sizes<float>();
    check_sizes<double>();
  });
}

TEST_CASE("rms_norm has the same bits for any number of lanes") {
  testing::for_each_isa([] {
    const Case<float> c(203, 65, true);
    const std::vector<float> y = forward(c, 1), results = backward(c, 1);
    for (const int lanes : {2, 3, 7}) {
      REQUIRE(forward(c, lanes) == y);
      REQUIRE(backward(c, lanes) == results);
    }
  });
}

TEST_CASE("rms_norm_vjp makes the results that are asked for, and writes no other") {
  testing::for_each_isa([] {
    const Case<double> c(70, 19, true);
    const std::vector<double> both = backward(c, 2);
    const std::vector<double> first = backward(c, 2, true, false), second = backward(c, 2, false, true);
    const size_t n = c.x.size();
    for (size_t i = 0; i < both.size(); ++i) {
      const double made = i < n ? first[i] : second[i], other = i < n ? second[i] : first[i];
      REQUIRE(made == doctest::Approx(both[i]));
      REQUIRE(other == 77.0);
    }
  });
}

TEST_CASE("rms_norm of a row with NaN is NaN, and leaves other rows alone") {
  testing::for_each_isa([] {
    Case<float> c(3, 19, true);
    const std::vector<float> before = forward(c, 1);
    c.x[19 + 5] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> y = forward(c, 1);
    for (size_t j = 0; j < 19; ++j) REQUIRE(std::isnan(y[19 + j]));
    REQUIRE(std::memcmp(y.data(), before.data(), 19 * sizeof(float)) == 0);
    REQUIRE(std::memcmp(y.data() + 38, before.data() + 38, 19 * sizeof(float)) == 0);
  });
}

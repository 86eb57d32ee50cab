#include "ops/layer_norm/layer_norm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "ops/layer_norm/layer_norm_ref.h"
#include "ops/testing.h"

using namespace gradring;
using gradring::testing::normal;

namespace {

template <class T>
struct Case {
  int64_t rows, columns;
  double offset;
  bool affine;
  std::vector<T> x, dy, weight, bias;

  Case(int64_t r, int64_t c, double at, bool a)
      : rows(r),
        columns(c),
        offset(at),
        affine(a),
        x(normal<T>(r * c)),
        dy(normal<T>(r * c)),
        weight(normal<T>(c)),
        bias(normal<T>(c)) {
    for (T& value : x) value += static_cast<T>(offset);
  }
};

template <class T>
std::vector<T> forward(const Case<T>& c, int lanes) {
  std::vector<T> y(c.x.size() + 1, T(77));
  LayerNormArguments<T> g;
  g.rows = c.rows, g.columns = c.columns, g.x = c.x.data(), g.y = y.data();
  if (c.affine) g.weight = c.weight.data(), g.bias = c.bias.data();
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { layer_norm(lane, g); });
  REQUIRE(y.back() == T(77));
  y.pop_back();
  return y;
}

// Returns dx, dweight and dbias one after another.
template <class T>
std::vector<T> backward(const Case<T>& c, int lanes) {
  const size_t n = c.x.size(), k = static_cast<size_t>(c.columns);
  std::vector<T> results(n + 2 * k + 1, T(77));
  LayerNormVjpArguments<T> g;
  g.rows = c.rows, g.columns = c.columns, g.dy = c.dy.data(), g.x = c.x.data();
  g.dx = results.data(), g.dweight = g.dx + n, g.dbias = g.dweight + k;
  if (c.affine) g.weight = c.weight.data();
  Team& team = testing::team_of(lanes);
  const ScratchBytes scratch = layer_norm_vjp_scratch(c.rows, c.columns, sizeof(T), true);
  team.reserve(scratch.per_lane, scratch.shared);
  team.run(lanes, [&](const Lane& lane) { layer_norm_vjp(lane, g); });
  REQUIRE(results.back() == T(77));
  results.pop_back();
  return results;
}

template <class T>
double variance(const T* x, int64_t count) {
  double mean = 0, squares = 0;
  for (int64_t i = 0; i < count; ++i) mean += double(x[i]) / double(count);
  for (int64_t i = 0; i < count; ++i) squares += (double(x[i]) - mean) * (double(x[i]) - mean);
  return squares / double(count);
}

template <class T>
void check(const Case<T>& c) {
  CAPTURE(c.rows);
  CAPTURE(c.columns);
  CAPTURE(c.offset);
  const double eps = double(std::numeric_limits<T>::epsilon());
  const T* weight = c.affine ? c.weight.data() : nullptr;
  const std::vector<T> y = forward(c, 1), results = backward(c, 1);
  const auto n = static_cast<int64_t>(c.x.size());
  std::vector<double> dweight(static_cast<size_t>(c.columns)), dbias(dweight);
  // The bound allows for an error of the mean of half a unit in its last place, which shifts the whole row.
  const double bound = eps * (40 + 4 * std::fabs(c.offset));
  for (int64_t i = 0; i < c.rows; ++i) {
    const T* x = c.x.data() + i * c.columns;
    const T* dy = c.dy.data() + i * c.columns;
    const auto want = reference::layer_norm(x, weight, c.affine ? c.bias.data() : nullptr, c.columns, 1e-5);
    const auto dx = reference::layer_norm_vjp(dy, x, weight, c.columns, 1e-5, &dweight, &dbias);
    const double scale = c.columns == 1 ? 400 : 8;  // with one column, errors grow by 1 / sqrt(eps)
    // The derivative is a difference of terms that this factor multiplies: it is large where a row's values lie close together.
    const double factor = 1 / std::sqrt(variance(x, c.columns) + 1e-5);
    for (int64_t j = 0; j < c.columns; ++j) {
      const auto at = static_cast<size_t>(i * c.columns + j);
      REQUIRE(std::fabs(y[at] - want[size_t(j)]) <= bound * scale * (1 + std::fabs(want[size_t(j)])));
      REQUIRE(std::fabs(results[at] - dx[size_t(j)]) <=
              bound * scale * scale * (1 + factor + std::fabs(dx[size_t(j)])));
    }
  }
  for (int64_t j = 0; j < c.columns; ++j) {
    const auto sums = static_cast<size_t>(n + j);
    const double rows = bound * 8 * (2 + double(c.rows));
    REQUIRE(std::fabs(results[sums] - dweight[size_t(j)]) <= rows * 4);
    REQUIRE(std::fabs(results[sums + size_t(c.columns)] - dbias[size_t(j)]) <= rows);
  }
}

template <class T>
void check_sizes() {
  for (const int64_t columns : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 130}) {
    for (const int64_t rows : {0, 1, 5, 31, 32, 33, 65}) check(Case<T>(rows, columns, 0, (rows + columns) % 3 != 0));
  }
  check(Case<T>(9, 100, 30, true));
}

}  // namespace

TEST_CASE("layer_norm agrees with the reference at every level, for odd sizes and a mean far from 0") {
  testing::for_each_isa([] {
    check_sizes<float>();
    check_sizes<double>();
  });
}

TEST_CASE("layer_norm has the same bits for any number of lanes") {
  testing::for_each_isa([] {
    const Case<float> c(203, 65, 1, true);
    const std::vector<float> y = forward(c, 1), results = backward(c, 1);
    for (const int lanes : {2, 3, 7}) {
      REQUIRE(forward(c, lanes) == y);
      REQUIRE(backward(c, lanes) == results);
    }
  });
}

TEST_CASE("layer_norm of a row with NaN or infinity is NaN, and leaves other rows alone") {
  testing::for_each_isa([] {
    Case<float> c(3, 19, 0, true);
    const std::vector<float> before = forward(c, 1);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      c.x[19 + 5] = bad;
      const std::vector<float> y = forward(c, 1);
      for (size_t j = 0; j < 19; ++j) REQUIRE(std::isnan(y[19 + j]));
      REQUIRE(std::memcmp(y.data(), before.data(), 19 * sizeof(float)) == 0);
      REQUIRE(std::memcmp(y.data() + 38, before.data() + 38, 19 * sizeof(float)) == 0);
    }
  });
}

#include <doctest/doctest.h>

#include <limits>

#include "ops/adam/adam_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
void check(int64_t n, int64_t step, bool decoupled, double decay, int lanes, bool amsgrad = false) {
  auto param = normal<T>(n + 1), m = normal<T>(n + 1, 0.1), v = normal<T>(n + 1, 0.1), vmax = normal<T>(n + 1, 0.1);
  for (T& value : v) value = std::abs(value);
  for (T& value : vmax) value = std::abs(value);
  const auto grad = normal<T>(n), old_param = param, old_m = m, old_v = v, old_vmax = vmax;
  AdamArguments<T> g{n, param.data(), grad.data(), m.data(), v.data(), step};
  g.lr = 0.01, g.decoupled = decoupled, g.weight_decay = decay, g.grad_scale = 0.3;
  if (amsgrad) g.vmax = vmax.data();
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { adam_update<T>(lane, g); });
  AdamArguments<T> old = g;
  old.param = const_cast<T*>(old_param.data());
  old.m = const_cast<T*>(old_m.data()), old.v = const_cast<T*>(old_v.data());
  old.vmax = const_cast<T*>(old_vmax.data());
  const double tolerance = 16 * std::numeric_limits<T>::epsilon();
  for (int64_t i = 0; i < n; ++i) {
    double p = 0, first = 0, second = 0, largest = 0;
    reference::adam<T>(old, i, &p, &first, &second, amsgrad ? &largest : nullptr);
    const auto at = static_cast<size_t>(i);
    REQUIRE(std::abs(vmax[at] - (amsgrad ? largest : double(old_vmax[at]))) <= tolerance);
    REQUIRE(std::abs(m[at] - first) <= tolerance);
    REQUIRE(std::abs(v[at] - second) <= tolerance);
    REQUIRE(std::abs(param[at] - p) <= tolerance * (1 + std::abs(p) + std::abs(p - double(old_param[at]))));
  }
  CHECK(param.back() == old_param.back());
  CHECK(m.back() == old_m.back());
  CHECK(v.back() == old_v.back());
  CHECK(vmax.back() == old_vmax.back());
}

}  // namespace

TEST_CASE("adam_update matches the reference") {
  for_each_isa([] {
    for (int64_t n : {0, 1, 7, 16, 33, 1000, 5000}) {
      for (int64_t step : {1, 2, 100, 100000}) {
        check<float>(n, step, false, 0, 1);
        check<float>(n, step, true, 0.1, 3);
        check<float>(n, step, false, 0.1, 2);
        check<double>(n, step, true, 0.1, 1);
        check<float>(n, step, false, 0.1, 2, true);
        check<double>(n, step, true, 0.1, 3, true);
      }
    }
  });
}

namespace {

template <class T>
void check_tiles(bool decoupled, int64_t columns = 41, int64_t tall = 5, int64_t wide = 18) {
  constexpr int64_t kRows = 43;
  CAPTURE(columns);
  CAPTURE(tall);
  auto param = normal<T>(kRows * columns), m = normal<T>(kRows * columns), v = normal<T>(kRows * columns);
  for (T& value : v) value = std::abs(value);
  const auto grad = normal<T>(kRows * columns);
  auto tiled_param = param, tiled_m = m, tiled_v = v;
  AdamArguments<T> g{kRows * columns, param.data(), grad.data(), m.data(), v.data(), 3};
  g.lr = 0.05, g.decoupled = decoupled, g.weight_decay = 0.01, g.grad_scale = 0.3;
  AdamMatrix<T> matrix{g, adam_factors(g.step, g.lr, g.beta1, g.beta2), columns};
  matrix.whole.param = tiled_param.data(), matrix.whole.grad = nullptr;
  matrix.whole.m = tiled_m.data(), matrix.whole.v = tiled_v.data();
  adam_update<T>(Lane{}, g);
  for (int64_t row = 0; row < kRows; row += tall) {
    for (int64_t column = 0; column < columns; column += wide) {
      adam_tile_update<T>()(&matrix, row, std::min(tall, kRows - row), column, std::min(wide, columns - column),
                            grad.data() + row * columns + column, columns);
    }
  }
  CHECK(tiled_param == param);
  CHECK(tiled_m == m);
  CHECK(tiled_v == v);
}

}  // namespace

TEST_CASE("an adam update in tiles has the bits of the flat one") {
  for_each_isa([] {
    for (bool decoupled : {false, true}) {
      check_tiles<float>(decoupled);
      check_tiles<double>(decoupled);
      for (int64_t columns : {1, 2, 7, 10, 15, 17, 31, 33, 63, 65}) {  // whole short rows, which are updated together
        for (int64_t tall : {1, 14, 40}) {
          check_tiles<float>(decoupled, columns, tall, columns);
          check_tiles<double>(decoupled, columns, tall, columns);
        }
      }
    }
  });
}

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/sgd/sgd_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
void check(int64_t n, double momentum, bool nesterov, double decay, int lanes) {
  auto param = normal<T>(n + 1), velocity = normal<T>(n + 1);
  const auto grad = normal<T>(n), before = param, velocity_before = velocity;
  SgdArguments<T> g{n, param.data(), grad.data(), momentum != 0 ? velocity.data() : nullptr};
  g.lr = 0.05, g.momentum = momentum, g.nesterov = nesterov, g.weight_decay = decay, g.grad_scale = 0.3;
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { sgd_update<T>(lane, g); });
  const double tolerance = 8 * std::numeric_limits<T>::epsilon();
  SgdArguments<T> old = g;
  old.param = const_cast<T*>(before.data()), old.velocity = const_cast<T*>(velocity_before.data());
  for (int64_t i = 0; i < n; ++i) {
    double p = 0, v = velocity_before[static_cast<size_t>(i)];
    reference::sgd<T>(old, i, &p, &v);
    REQUIRE(std::abs(param[static_cast<size_t>(i)] - p) <= tolerance * (1 + std::abs(p)));
    REQUIRE(std::abs(velocity[static_cast<size_t>(i)] - v) <= tolerance * (1 + std::abs(v)));
  }
  CHECK(param.back() == before.back());
  CHECK(velocity.back() == velocity_before.back());
}

}  // namespace

TEST_CASE("sgd_update matches the reference") {
  for_each_isa([] {
    for (int64_t n : {0, 1, 7, 16, 33, 1000, 5000}) {
      for (int lanes : {1, 3}) {
        check<float>(n, 0, false, 0, lanes);
        check<float>(n, 0.9, false, 0, lanes);
        check<float>(n, 0.9, true, 0.01, lanes);
        check<double>(n, 0.9, true, 0.01, lanes);
        check<double>(n, 0, false, 0.01, lanes);
      }
    }
  });
}

namespace {

template <class T>
void check_tiles(double momentum, bool nesterov, int64_t columns = 41, int64_t tall = 5, int64_t wide = 18) {
  constexpr int64_t kRows = 43;
  CAPTURE(columns);
  CAPTURE(tall);
  auto param = normal<T>(kRows * columns), velocity = normal<T>(kRows * columns);
  const auto grad = normal<T>(kRows * columns);
  auto tiled_param = param, tiled_velocity = velocity;
  SgdArguments<T> g{kRows * columns, param.data(), grad.data(), velocity.data()};
  g.lr = 0.05, g.momentum = momentum, g.nesterov = nesterov, g.weight_decay = 0.01, g.grad_scale = 0.3;
  SgdMatrix<T> matrix{g, columns};
  matrix.whole.param = tiled_param.data(), matrix.whole.velocity = tiled_velocity.data(), matrix.whole.grad = nullptr;
  sgd_update<T>(Lane{}, g);
  for (int64_t row = 0; row < kRows; row += tall) {
    for (int64_t column = 0; column < columns; column += wide) {
      sgd_tile_update<T>()(&matrix, row, std::min(tall, kRows - row), column, std::min(wide, columns - column),
                           grad.data() + row * columns + column, columns);
    }
  }
  CHECK(tiled_param == param);
  CHECK(tiled_velocity == velocity);
}

}  // namespace

TEST_CASE("an update in tiles has the bits of the flat one") {
  for_each_isa([] {
    for (double momentum : {0.0, 0.9}) {
      for (bool nesterov : {false, true}) {
        check_tiles<float>(momentum, nesterov);
        check_tiles<double>(momentum, nesterov);
        for (int64_t columns : {1, 2, 7, 10, 15, 17, 31, 33, 63, 65}) {  // whole short rows, which are updated together
          for (int64_t tall : {1, 14, 40}) {
            check_tiles<float>(momentum, nesterov, columns, tall, columns);
            check_tiles<double>(momentum, nesterov, columns, tall, columns);
          }
        }
      }
    }
  });
}

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "ops/lion/lion_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
void check(int64_t n, double decay, int lanes) {
  auto param = normal<T>(n + 1), m = normal<T>(n + 1);
  auto grad = normal<T>(n);
  if (n > 3) grad[1] = m[1] = 0, grad[2] = std::numeric_limits<T>::quiet_NaN();
  const auto old_param = param, old_m = m;
  LionArguments<T> g{n, param.data(), grad.data(), m.data()};
  g.lr = 0.01, g.weight_decay = decay, g.grad_scale = 0.3;
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { lion_update<T>(lane, g); });
  LionArguments<T> old = g;
  old.param = const_cast<T*>(old_param.data()), old.m = const_cast<T*>(old_m.data());
  const double tolerance = 8 * std::numeric_limits<T>::epsilon();
  for (int64_t i = 0; i < n; ++i) {
    double direction = 0, mean = 0;
    reference::lion<T>(old, i, &direction, &mean);
    const auto at = static_cast<size_t>(i);
    if (std::isnan(direction)) {
      REQUIRE(std::isnan(param[at]));
      REQUIRE(std::isnan(m[at]));
      continue;
    }
    REQUIRE(std::abs(m[at] - mean) <= tolerance * (1 + std::abs(mean)));
    if (direction != 0 && std::abs(direction) <= tolerance) continue;  // rounding may change the sign
    const double want = reference::lion_param<T>(old, i, direction);
    REQUIRE(std::abs(param[at] - want) <= tolerance * (1 + std::abs(want)));
  }
  CHECK(param.back() == old_param.back());
  CHECK(m.back() == old_m.back());
}

}  // namespace

TEST_CASE("lion_update matches the reference") {
  for_each_isa([] {
    for (int64_t n : {0, 1, 7, 16, 33, 1000, 5000}) {
      for (int lanes : {1, 3}) {
        check<float>(n, 0, lanes);
        check<float>(n, 0.1, lanes);
        check<double>(n, 0.1, lanes);
      }
    }
  });
}

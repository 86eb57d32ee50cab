#include <doctest/doctest.h>

#include <limits>

#include "ops/rmsprop/rmsprop_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
void check(int64_t n, bool centered, double momentum, double decay, int lanes) {
  auto param = normal<T>(n + 1), v = normal<T>(n + 1), mean = normal<T>(n + 1, 0.1), velocity = normal<T>(n + 1);
  for (T& value : v) value = std::abs(value) + T(0.1);
  const auto grad = normal<T>(n), old_param = param, old_v = v, old_mean = mean, old_velocity = velocity;
  RmspropArguments<T> g{n, param.data(), grad.data(), v.data()};
  if (centered) g.mean = mean.data();
  if (momentum != 0) g.velocity = velocity.data();
  g.lr = 0.01, g.alpha = 0.9, g.eps = 1e-3, g.momentum = momentum, g.weight_decay = decay, g.grad_scale = 0.3;
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { rmsprop_update<T>(lane, g); });
  RmspropArguments<T> old = g;
  old.param = const_cast<T*>(old_param.data()), old.v = const_cast<T*>(old_v.data());
  if (centered) old.mean = const_cast<T*>(old_mean.data());
  if (momentum != 0) old.velocity = const_cast<T*>(old_velocity.data());
  const double tolerance = 64 * std::numeric_limits<T>::epsilon();
  for (int64_t i = 0; i < n; ++i) {
    const reference::Rmsprop want = reference::rmsprop<T>(old, i);
    const auto at = static_cast<size_t>(i);
    REQUIRE(std::abs(v[at] - want.v) <= tolerance * (1 + want.v));
    REQUIRE(std::abs(mean[at] - (centered ? want.mean : double(old_mean[at]))) <= tolerance);
    const double step = momentum != 0 ? want.velocity : double(old_velocity[at]);
    REQUIRE(std::abs(velocity[at] - step) <= tolerance * (1 + std::abs(step)));
    REQUIRE(std::abs(param[at] - want.param) <= tolerance * (1 + std::abs(want.param)));
  }
  CHECK(param.back() == old_param.back());
  CHECK(v.back() == old_v.back());
  CHECK(mean.back() == old_mean.back());
  CHECK(velocity.back() == old_velocity.back());
}

}  // namespace

TEST_CASE("rmsprop_update matches the reference") {
  for_each_isa([] {
    for (int64_t n : {0, 1, 7, 16, 33, 1000, 5000}) {
      for (bool centered : {false, true}) {
        for (double momentum : {0.0, 0.9}) {
          check<float>(n, centered, momentum, 0, 1);
          check<float>(n, centered, momentum, 0.1, 3);
          check<double>(n, centered, momentum, 0.1, 2);
        }
      }
    }
  });
}

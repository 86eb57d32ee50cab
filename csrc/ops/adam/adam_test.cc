#include <doctest/doctest.h>

#include <limits>

#include "ops/adam/adam_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
void check(int64_t n, int64_t step, bool decoupled, double decay, int lanes) {
  auto param = normal<T>(n + 1), m = normal<T>(n + 1, 0.1), v = normal<T>(n + 1, 0.1);
  for (T& value : v) value = std::abs(value);
  const auto grad = normal<T>(n), old_param = param, old_m = m, old_v = v;
  AdamArguments<T> g{n, param.data(), grad.data(), m.data(), v.data(), step};
  g.lr = 0.01, g.decoupled = decoupled, g.weight_decay = decay, g.grad_scale = 0.3;
  Team team(lanes);
  team.run(lanes, [&](const Lane& lane) { adam_update<T>(lane, g); });
  AdamArguments<T> old = g;
  old.param = const_cast<T*>(old_param.data());
  old.m = const_cast<T*>(old_m.data()), old.v = const_cast<T*>(old_v.data());
  const double tolerance = 16 * std::numeric_limits<T>::epsilon();
  for (int64_t i = 0; i < n; ++i) {
    double p = 0, first = 0, second = 0;
    reference::adam<T>(old, i, &p, &first, &second);
    const auto at = static_cast<size_t>(i);
    REQUIRE(std::abs(m[at] - first) <= tolerance);
    REQUIRE(std::abs(v[at] - second) <= tolerance);
    REQUIRE(std::abs(param[at] - p) <= tolerance * (1 + std::abs(p) + std::abs(p - double(old_param[at]))));
  }
  CHECK(param.back() == old_param.back());
  CHECK(m.back() == old_m.back());
  CHECK(v.back() == old_v.back());
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
      }
    }
  });
}

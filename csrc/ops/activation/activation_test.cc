#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "ops/activation/activation_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

constexpr Activation kAll[] = {Activation::kNone, Activation::kRelu,    Activation::kGelu,   Activation::kSilu,
                               Activation::kTanh, Activation::kSigmoid, Activation::kGeluErf};

template <class T>
void check_against_reference(Activation kind, int64_t n, int lanes) {
  const double tolerance = 16 * std::numeric_limits<T>::epsilon();
  const std::vector<T> x = normal<T>(n, 4), dy = normal<T>(n, 1);
  std::vector<T> y(x.size() + 1, T(77)), dx(x.size() + 1, T(77));
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) {
    activation_forward<T>(lane, {kind, n, x.data(), y.data()});
    lane.barrier();
    const T* source = derivative_needs_input(kind) ? x.data() : y.data();
    activation_vjp<T>(lane, {kind, n, dy.data(), source, dx.data()});
  });
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = reference::activate(kind, x[i]);
    REQUIRE(std::abs(y[i] - want) <= tolerance * (std::abs(want) + 1e-3));
    const double back = reference::activate_backward(kind, dy[i], derivative_needs_input(kind) ? x[i] : y[i]);
    REQUIRE(std::abs(dx[i] - back) <= tolerance * std::abs(dy[i]));
  }
  CHECK(y.back() == T(77));  // nothing is written beyond n
  CHECK(dx.back() == T(77));
}

template <class T>
T one(Activation kind, T x) {
  T y = 0;
  activation_forward<T>(Lane{}, {kind, 1, &x, &y});
  return y;
}
template <class T>
T slope_at(Activation kind, T x) {
  T y = one(kind, x), dy = 1, dx = 0;
  activation_vjp<T>(Lane{}, {kind, 1, &dy, derivative_needs_input(kind) ? &x : &y, &dx});
  return dx;
}

template <class T>
void check_special_values() {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const T huge = std::numeric_limits<T>::max();
  for (Activation kind : kAll) {
    CHECK(std::isnan(one(kind, nan)));
    if (kind == Activation::kNone) continue;
    const bool bounded = kind == Activation::kTanh || kind == Activation::kSigmoid;
    for (T big : {inf, huge}) {
      CHECK(one(kind, big) == (bounded ? T(1) : big));
      CHECK(one(kind, -big) == (kind == Activation::kTanh ? T(-1) : T(0)));
      CHECK(slope_at(kind, big) == (bounded ? T(0) : T(1)));
      CHECK(slope_at(kind, -big) == T(0));
    }
  }
  T infinite = inf, zero = 0, dx = 1;
  activation_vjp<T>(Lane{}, {Activation::kRelu, 1, &infinite, &zero, &dx});
  CHECK(dx == T(0));  // where relu is 0, dx is 0 and not Inf * 0
}

}  // namespace

TEST_CASE("activations and their derivatives match the reference") {
  for_each_isa([] {
    for (Activation kind : kAll) {
      for (int64_t n : {0, 1, 3, 15, 16, 17, 33, 1000, 5000}) {
        check_against_reference<float>(kind, n, n > 1000 ? 3 : 1);
        check_against_reference<double>(kind, n, n > 1000 ? 2 : 1);
      }
    }
  });
}

TEST_CASE("activations give infinities their limits and keep NaN") {
  for_each_isa([] {
    check_special_values<float>();
    check_special_values<double>();
  });
}

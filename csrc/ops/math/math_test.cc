// The errors that math.h states, measured against long double.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "ops/math/testing.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

using Truth = long double (*)(long double);

long double sigmoid(long double x) { return 1 / (1 + std::exp(-x)); }
long double normal(long double x) { return std::erfc(-x / std::sqrt(2.0L)) / 2; }
long double density(long double x) { return std::exp(-x * x / 2) * 0.398942280401432677939946059934L; }
long double softplus(long double x) { return x > 50 ? x : std::log1p(std::exp(x)); }

// Error in units in the last place of T at the true value; below the smallest normal number, in smallest denormals.
template <class T>
double ulps(T got, long double truth) {
  using L = std::numeric_limits<T>;
  if (static_cast<long double>(got) == truth) return 0;
  const int exponent = std::max(std::ilogb(truth == 0 ? L::min() : truth), L::min_exponent - 1);
  return static_cast<double>(std::fabs(got - truth) / std::ldexp(1.0L, exponent - (L::digits - 1)));
}

template <class T>
void check(const char* name, typename MathTable<T>::Map map, Truth truth, const std::vector<T>& xs, T low, T high,
           double limit) {
  std::vector<T> x;
  for (T value : xs) {
    if (value >= low && value <= high) x.push_back(value);
  }
  std::vector<T> y(x.size());
  map(x.data(), y.data(), static_cast<int64_t>(x.size()));
  double worst = 0;
  T where = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const long double want = truth(x[i]);
    // exp may return 0 for results this small.
    if (want > 0 && want < 4 * std::numeric_limits<T>::min() && x[i] < 0) {
      REQUIRE(std::fabs(y[i] - want) < 4 * std::numeric_limits<T>::min());
      continue;
    }
    const double error = ulps(y[i], want);
    if (!(error <= worst)) worst = error, where = x[i];
  }
  CAPTURE(std::string(isa_name(active_isa())));
  CAPTURE(std::string(name));
  CAPTURE(where);
  REQUIRE(x.size() > 1000);
  CHECK(worst <= limit);
}

// Takes every 2^32nd part by an odd stride, so that floats of all exponents and both signs occur.
std::vector<float> floats() {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < (1ull << 32); bits += 5003) {
    const auto word = static_cast<uint32_t>(bits);
    float value;
    std::memcpy(&value, &word, sizeof value);
    values.push_back(value);
  }
  return values;
}

std::vector<double> doubles() {
  std::vector<double> values;
  std::uniform_real_distribution<double> mantissa(1, 2);
  for (int exponent = -1074; exponent <= 1023; ++exponent) {
    const int count = std::abs(exponent) < 40 ? 2000 : 20;
    for (int i = 0; i < count; ++i) {
      const double value = std::ldexp(mantissa(random_bits()), exponent);
      values.push_back(value);
      values.push_back(-value);
    }
  }
  return values;
}

template <class T>
void check_all(const std::vector<T>& x, const MathTable<T>& math, T exp_low, T exp_high) {
  const T max = std::numeric_limits<T>::max();
  check<T>("exp", math.exp, [](long double v) { return std::exp(v); }, x, exp_low, exp_high, 1.2);
  check<T>(
      "log", math.log, [](long double v) { return std::log(v); }, x, std::numeric_limits<T>::denorm_min(), max, 0.9);
  check<T>("log1p", math.log1p_unit, [](long double v) { return std::log1p(v); }, x, 0, 1, 1.4);
  check<T>("tanh", math.tanh, [](long double v) { return std::tanh(v); }, x, -max, max, 2.6);
  check<T>("sigmoid", math.sigmoid, sigmoid, x, -max, max, 2.5);
  check<T>("softplus", math.softplus, softplus, x, -max, max, 2.2);
  check<T>("normal", math.normal, normal, x, -max, max, 8);
  check<T>("density", math.density, density, x, -max, 0, 3);
}

template <class T>
T at(typename MathTable<T>::Map map, T x) {
  T y = 0;
  map(&x, &y, 1);
  return y;
}

template <class T>
void check_special_values(const MathTable<T>& math) {
  using L = std::numeric_limits<T>;
  const T inf = L::infinity(), nan = L::quiet_NaN();
  for (auto map :
       {math.exp, math.log, math.log1p_unit, math.tanh, math.sigmoid, math.softplus, math.normal, math.density}) {
    CHECK(std::isnan(at<T>(map, nan)));
  }
  CHECK(at<T>(math.exp, inf) == inf);
  CHECK(at<T>(math.exp, L::max()) == inf);
  CHECK(at<T>(math.exp, -inf) == 0);
  CHECK(at<T>(math.exp, -L::max()) == 0);
  CHECK(at<T>(math.exp, T(0)) == 1);
  CHECK(at<T>(math.exp, T(-0.0)) == 1);
  CHECK(at<T>(math.log, inf) == inf);
  CHECK(at<T>(math.log, T(0)) == -inf);
  CHECK(at<T>(math.log, T(-0.0)) == -inf);
  CHECK(at<T>(math.log, T(1)) == 0);
  CHECK(std::isnan(at<T>(math.log, T(-1))));
  CHECK(std::isnan(at<T>(math.log, -inf)));
  CHECK(at<T>(math.tanh, inf) == 1);
  CHECK(at<T>(math.tanh, -inf) == -1);
  CHECK(std::signbit(at<T>(math.tanh, T(-0.0))));
  CHECK(at<T>(math.tanh, L::denorm_min()) == L::denorm_min());
  CHECK(at<T>(math.sigmoid, inf) == 1);
  CHECK(at<T>(math.sigmoid, -inf) == 0);
  CHECK(at<T>(math.sigmoid, T(0)) == T(0.5));
  CHECK(at<T>(math.normal, inf) == 1);
  CHECK(at<T>(math.normal, -inf) == 0);
  CHECK(at<T>(math.normal, T(0)) == T(0.5));
  for (T x : {inf, -inf, L::max(), L::lowest()}) CHECK(at<T>(math.density, x) == 0);
  CHECK(at<T>(math.softplus, inf) == inf);
  CHECK(at<T>(math.softplus, -inf) == 0);
}

}  // namespace

TEST_CASE("vector functions keep the stated errors") {
  const std::vector<float> single = floats();
  const std::vector<double> wide = doubles();
  for_each_isa([&] {
    check_all<float>(single, GRADRING_KERNELS(math_kernels).f32, -104.0f, 88.722839f);
    check_all<double>(wide, GRADRING_KERNELS(math_kernels).f64, -745.0, 709.78271289338397);
  });
}

TEST_CASE("vector functions are right at zero, infinity and NaN") {
  for_each_isa([] {
    check_special_values<float>(GRADRING_KERNELS(math_kernels).f32);
    check_special_values<double>(GRADRING_KERNELS(math_kernels).f64);
  });
}

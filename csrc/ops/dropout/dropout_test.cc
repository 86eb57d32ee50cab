#include <doctest/doctest.h>

#include <cmath>

#include "ops/dropout/dropout_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
std::vector<T> run(DropoutArguments<T> g, int lanes) {
  std::vector<T> y(static_cast<size_t>(g.rows * g.columns) + 1, T(77));
  g.y = y.data();
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { dropout<T>(lane, g); });
  CHECK(y.back() == T(77));
  y.pop_back();
  return y;
}

template <class T>
void check(int64_t rows, int64_t columns, double p, bool with_samples) {
  const auto x = normal<T>(rows * columns);
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < rows; ++i) samples.push_back(static_cast<int64_t>(random_bits()() >> 20));
  DropoutArguments<T> g{rows, columns, x.data()};
  g.samples = with_samples ? samples.data() : nullptr;
  g.first_sample = 1000, g.seed = random_bits()(), g.layer = 3, g.epoch = 9, g.p = p;
  const auto y = run<T>(g, 1);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      REQUIRE(y[static_cast<size_t>(i * columns + j)] == reference::dropout<T>(g, i, j));
    }
  }
  CHECK(run<T>(g, 2) == y);
  CHECK(run<T>(g, 5) == y);
}

}  // namespace

TEST_CASE("dropout draws what its definition says, on any ISA and number of lanes") {
  for_each_isa([] {
    for (int64_t columns : {1, 7, 8, 9, 31, 64, 100, 129, 300}) {
      for (int64_t rows : {0, 1, 3, 16, 41}) {
        check<float>(rows, columns, 0.5, true);
        check<double>(rows, columns, 0.1, false);
      }
    }
    check<float>(4, 20, 0, true);
    check<float>(4, 20, 1, true);
  });
}

TEST_CASE("dropout keeps the fraction and the mean it promises, and differs by every part of its key") {
  const int64_t rows = 400, columns = 500;
  const std::vector<float> ones(rows * columns, 1.0f);
  DropoutArguments<float> g{rows, columns, ones.data()};
  g.p = 0.3, g.seed = 5;
  const auto y = run<float>(g, 1);
  double kept = 0, mean = 0;
  for (float value : y) kept += value != 0, mean += static_cast<double>(value);
  CHECK(std::abs(kept / (rows * columns) - 0.7) < 5 * std::sqrt(0.21 / (rows * columns)));
  CHECK(std::abs(mean / (rows * columns) - 1) < 5 * std::sqrt(0.3 / 0.7 / (rows * columns)));
  const auto agreement = [&](DropoutArguments<float> other) {
    const auto z = run<float>(other, 1);
    double same = 0;
    for (size_t i = 0; i < y.size(); ++i) same += y[i] == z[i];
    return same / static_cast<double>(y.size());
  };
  CHECK(agreement(g) == 1);
  const double independent = 0.49 + 0.09;
  auto other = g;
  other.seed = 6;
  CHECK(std::abs(agreement(other) - independent) < 0.01);
  other = g, other.layer = 1;
  CHECK(std::abs(agreement(other) - independent) < 0.01);
  other = g, other.epoch = 1;
  CHECK(std::abs(agreement(other) - independent) < 0.01);
  other = g, other.first_sample = 1;
  CHECK(std::abs(agreement(other) - independent) < 0.01);
}

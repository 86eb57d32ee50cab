#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "ops/sum_parts/sum_parts_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
void check(int64_t rows, int64_t columns, bool bias, bool relu, int lanes) {
  const auto first = normal<T>(rows * columns), row = normal<T>(columns);
  auto second = normal<T>(rows * columns);
  if (rows * columns > 3) second[static_cast<size_t>(rows * columns) - 2] = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> y(static_cast<size_t>(rows * columns) + 1, T(7));
  SumPartsArguments<T> g{rows, columns, first.data(), second.data(), bias ? row.data() : nullptr, relu, y.data()};
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { sum_parts<T>(lane, g); });
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const T expected = reference::sum_parts<T>(g, i, j), got = y[static_cast<size_t>(i * columns + j)];
      REQUIRE((std::isnan(expected) ? std::isnan(got) : got == expected));
    }
  }
  CHECK(y.back() == T(7));
}

}  // namespace

TEST_CASE("sum_parts has the reference's bits") {
  for_each_isa([] {
    for (int64_t rows : {0, 1, 3, 64}) {
      for (int64_t columns : {1, 15, 16, 33, 130}) {
        for (int lanes : {1, 2, 5}) {
          check<float>(rows, columns, true, true, lanes);
          check<float>(rows, columns, false, true, lanes);
          check<double>(rows, columns, true, false, lanes);
          check<double>(rows, columns, false, false, lanes);
        }
      }
    }
  });
}

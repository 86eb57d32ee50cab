#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "ops/column_sums/column_sums_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

constexpr double kGap = 7;  // fills the gaps between rows and after the sums, which the op must neither read nor write

template <class T>
std::vector<T> sums_of(ColumnSumsArguments<T> g, int lanes) {
  std::vector<T> sums(static_cast<size_t>(g.columns) + 1, T(kGap));
  g.sums = sums.data();
  Team& team = testing::team_of(lanes);
  team.run(lanes, [&](const Lane& lane) { column_sums<T>(lane, g); });
  CHECK(sums.back() == T(kGap));
  return sums;
}

template <class T>
void check(int64_t rows, int64_t columns, int64_t gap) {
  CAPTURE(rows);
  CAPTURE(columns);
  ColumnSumsArguments<T> g{rows, columns, nullptr, columns + gap, nullptr};
  std::vector<T> x = normal<T>(rows * g.ldx);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = columns; j < g.ldx; ++j)
      x[static_cast<size_t>(i * g.ldx + j)] = std::numeric_limits<T>::quiet_NaN();
  g.x = x.data();
  const std::vector<T> alone = sums_of(g, 1);
  for (int64_t j = 0; j < columns; ++j) {
    double size = 0;
    for (int64_t i = 0; i < rows; ++i) size += std::abs(static_cast<double>(x[static_cast<size_t>(i * g.ldx + j)]));
    // In any order, the error of each of the rows - 1 additions is at most half a unit in the last place of the sum of
    // absolute values.
    const double allowed = static_cast<double>(rows) * std::numeric_limits<T>::epsilon() * size;
    REQUIRE(std::abs(static_cast<double>(alone[static_cast<size_t>(j)]) - reference::column_sum(g, j)) <= allowed);
  }
  for (int lanes : {2, 3, 8}) REQUIRE(sums_of(g, lanes) == alone);
}

}  // namespace

TEST_CASE("column_sums agrees with plain sums, the same bits for any number of lanes") {
  for_each_isa([] {
    for (int64_t rows : {0, 1, 3, 4, 5, 64, 257}) {
      for (int64_t columns : {0, 1, 7, 15, 16, 17, 64, 65, 200}) {
        check<float>(rows, columns, uniform(0, 9));
        check<double>(rows, columns, uniform(0, 9));
      }
    }
  });
}

TEST_CASE("a NaN or an infinity stays in its column") {
  for_each_isa([] {
    constexpr int64_t kRows = 9, kColumns = 70;
    std::vector<float> x(kRows * kColumns, 1.0F);
    x[4 * kColumns + 33] = std::numeric_limits<float>::quiet_NaN();
    x[8 * kColumns + 69] = std::numeric_limits<float>::infinity();
    const ColumnSumsArguments<float> g{kRows, kColumns, x.data(), kColumns, nullptr};
    const std::vector<float> sums = sums_of(g, 2);
    for (int64_t j = 0; j < kColumns; ++j) {
      const float sum = sums[static_cast<size_t>(j)];
      REQUIRE((j == 33 ? std::isnan(sum) : j == 69 ? std::isinf(sum) : sum == 9.0F));
    }
  });
}

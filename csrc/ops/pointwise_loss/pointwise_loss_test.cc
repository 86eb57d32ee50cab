#include <doctest/doctest.h>

#include <limits>

#include "ops/pointwise_loss/pointwise_loss_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
struct Result {
  std::vector<T> losses, gradient, sums;
  LossTotals totals;
};

template <class T>
Result<T> run(PointwiseLossArguments<T> g, int lanes, bool in_place = false) {
  const auto rows = static_cast<size_t>(g.rows), columns = static_cast<size_t>(g.columns);
  Result<T> r{
      std::vector<T>(rows, T(77)), std::vector<T>(rows * columns + 1, T(77)), std::vector<T>(columns, T(77)), {}};
  if (in_place) {
    for (size_t i = 0; i < rows * columns; ++i) r.gradient[i] = g.predictions[i];
    g.predictions = r.gradient.data();
  }
  g.losses = r.losses.data(), g.gradient = r.gradient.data(), g.column_sums = r.sums.data(), g.totals = &r.totals;
  Team& team = testing::team_of(lanes);
  const ScratchBytes scratch = pointwise_loss_scratch<T>(g, lanes);
  team.reserve(scratch.per_lane, scratch.shared);
  team.run(lanes, [&](const Lane& lane) { pointwise_loss<T>(lane, g); });
  CHECK(r.gradient.back() == T(77));
  return r;
}

template <class T>
void check(PointwiseLoss kind, int64_t rows, int64_t columns, bool weighted = false) {
  const auto p = normal<T>(rows * columns, 3), dlosses = normal<T>(rows);
  auto t = normal<T>(rows * columns);
  if (kind == PointwiseLoss::kBinaryCrossEntropy) {
    for (T& value : t) value = value > 0 ? T(1) : value > T(-0.1) ? T(0.25) : T(0);
  }
  PointwiseLossArguments<T> g{kind, rows, columns, p.data(), t.data()};
  g.scale = T(1) / T(rows ? rows : 1);
  g.dlosses = rows % 2 ? dlosses.data() : nullptr;
  std::vector<T> weights, pos_weights;
  const T class_weights[] = {T(0.5), T(2)};
  for (int64_t i = 0; i < rows; ++i) weights.push_back(i % 5 == 2 ? T(0) : T(random_bits()() % 1000) / 500);
  for (int64_t j = 0; j < columns; ++j) pos_weights.push_back(j == 1 ? T(0) : T(random_bits()() % 1000) / 500);
  if (weighted) {
    const bool binary = kind == PointwiseLoss::kBinaryCrossEntropy;
    g.weights = rows % 3 ? weights.data() : nullptr;
    g.pos_weights = binary && columns != 3 ? pos_weights.data() : nullptr;
    g.class_weights = binary && columns == 1 ? class_weights : nullptr;
    g.divide = rows > 40 && (g.weights || g.class_weights);
    g.delta = T(0.75);
    if (g.divide) g.scale = 1;
  }
  const auto want = reference::pointwise_loss<T>(g);
  const auto got = run<T>(g, 1);
  const double eps = std::numeric_limits<T>::epsilon();
  CAPTURE(rows);
  CAPTURE(columns);
  for (size_t i = 0; i < got.losses.size(); ++i) {
    REQUIRE(std::abs(got.losses[i] - want.losses[i]) <= 32 * eps * (1 + std::abs(want.losses[i])));
  }
  const double part = g.divide ? std::fmax(1, 1 / want.totals.weight) : 1;
  const double scale = 40 * g.scale / static_cast<double>(columns) * (weighted ? 8 * part : 1);
  for (size_t i = 0; i < want.gradient.size(); ++i) {
    REQUIRE(std::abs(got.gradient[i] - want.gradient[i]) <= 8 * eps * scale);
  }
  for (size_t j = 0; j < want.column_sums.size(); ++j) {
    REQUIRE(std::abs(got.sums[j] - want.column_sums[j]) <= 8 * eps * scale * std::sqrt(double(rows + 1)));
  }
  CHECK(std::abs(got.totals.loss - want.totals.loss) <= 32 * eps * (want.totals.loss + double(rows)));
  CHECK(got.totals.correct == want.totals.correct);
  CHECK(got.totals.bad_row == -1);
  CHECK(got.totals.bad_weight == -1);
  CHECK(std::abs(got.totals.weight - want.totals.weight) <= 64 * eps * (1 + want.totals.weight));
  for (int lanes : {2, 3, 7}) {
    const auto other = run<T>(g, lanes, lanes == 2);
    CHECK(other.losses == got.losses);
    CHECK(other.gradient == got.gradient);
    CHECK(other.sums == got.sums);
    CHECK(other.totals.loss == got.totals.loss);
    CHECK(other.totals.correct == got.totals.correct);
  }
}

}  // namespace

TEST_CASE("losses that compare element by element match the reference, with the same bits for any number of lanes") {
  for_each_isa([] {
    for (PointwiseLoss kind :
         {PointwiseLoss::kMse, PointwiseLoss::kBinaryCrossEntropy, PointwiseLoss::kMae, PointwiseLoss::kHuber}) {
      for (int64_t columns : {1, 2, 3, 10, 16, 17, 100}) {
        for (int64_t rows : {0, 1, 5, 31, 32, 33, 100, 500}) {
          check<float>(kind, rows, columns);
          check<double>(kind, rows, columns);
          check<float>(kind, rows, columns, true);
          check<double>(kind, rows, columns, true);
        }
      }
      check<float>(kind, 10001, 1);
    }
  });
}

TEST_CASE("binary_cross_entropy is finite and exact far out") {
  for_each_isa([] {
    for (int64_t columns : {1, 4}) {
      std::vector<float> p{-1e4f, 1e4f, -1e4f, 1e4f}, t{0, 1, 1, 0}, losses(4), d(4);
      PointwiseLossArguments<float> g{PointwiseLoss::kBinaryCrossEntropy, 4 / columns, columns, p.data(), t.data()};
      g.losses = losses.data(), g.gradient = d.data();
      pointwise_loss<float>(Lane{}, g);
      if (columns == 1) {
        CHECK(losses == std::vector<float>{0, 0, 1e4f, 1e4f});
        CHECK(d == std::vector<float>{0, 0, -1, 1});
      } else {
        CHECK(losses[0] == 5e3f);
        CHECK(d == std::vector<float>{0, 0, -0.25f, 0.25f});
      }
    }
  });
}

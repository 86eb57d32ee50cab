#include <doctest/doctest.h>

#include <limits>

#include "ops/cross_entropy/cross_entropy_ref.h"
#include "ops/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

template <class T>
struct Result {
  std::vector<T> losses, dlogits, sums;
  LossTotals totals;
};

template <class T>
Result<T> run(CrossEntropyArguments<T> g, int lanes, bool in_place = false) {
  const auto rows = static_cast<size_t>(g.rows), classes = static_cast<size_t>(g.classes);
  Result<T> r{
      std::vector<T>(rows, T(77)), std::vector<T>(rows * classes + 1, T(77)), std::vector<T>(classes, T(77)), {}};
  if (in_place) {
    for (size_t i = 0; i < rows * classes; ++i) r.dlogits[i] = g.logits[i];
    g.logits = r.dlogits.data();
  }
  g.losses = r.losses.data(), g.dlogits = r.dlogits.data(), g.column_sums = r.sums.data(), g.totals = &r.totals;
  Team& team = testing::team_of(lanes);
  const ScratchBytes scratch = cross_entropy_scratch<T>(g, lanes);
  team.reserve(scratch.per_lane, scratch.shared);
  team.run(lanes, [&](const Lane& lane) { cross_entropy<T>(lane, g); });
  CHECK(r.dlogits.back() == T(77));
  return r;
}

// Compares the kernel with the reference, and with itself on several lanes.
template <class T>
void compare(const CrossEntropyArguments<T>& g) {
  const auto want = reference::cross_entropy<T>(g);
  const auto got = run<T>(g, 1);
  const double eps = std::numeric_limits<T>::epsilon();
  const int64_t rows = g.rows;
  CAPTURE(rows);
  CAPTURE(g.classes);
  const bool plain = !g.weights && !g.class_weights && !g.soft && g.smoothing == 0;
  const double slack = plain ? 1 : 10;  // a smoothed or soft target sums over the classes, which rounds more
  for (size_t i = 0; i < got.losses.size(); ++i) {
    REQUIRE(std::abs(got.losses[i] - want.losses[i]) <= 32 * eps * slack * (plain ? 1 : 1 + std::abs(want.losses[i])));
  }
  double scale = g.scale * (g.divide ? 1.0 : g.weights || g.class_weights ? 16.0 : 4.0);
  for (const double d : want.dlogits) scale = std::fmax(scale, std::abs(d));
  for (size_t i = 0; i < want.dlogits.size(); ++i) {
    REQUIRE(std::abs(got.dlogits[i] - want.dlogits[i]) <= 16 * eps * slack * scale);
  }
  for (size_t j = 0; j < want.column_sums.size(); ++j) {
    REQUIRE(std::abs(got.sums[j] - want.column_sums[j]) <= 16 * eps * slack * scale * std::sqrt(double(rows + 1)));
  }
  CHECK(std::abs(got.totals.loss - want.totals.loss) <=
        32 * eps * slack * (double(rows + 1) + std::abs(want.totals.loss)));
  CHECK(got.totals.correct == want.totals.correct);
  CHECK(got.totals.bad_row == want.totals.bad_row);
  CHECK(got.totals.bad_weight == want.totals.bad_weight);
  CHECK(std::abs(got.totals.weight - want.totals.weight) <= 8 * eps * (1 + want.totals.weight));
  for (int lanes : {2, 3, 7}) {
    const auto other = run<T>(g, lanes, lanes == 2);
    CHECK(other.losses == got.losses);
    CHECK(other.dlogits == got.dlogits);
    CHECK(other.sums == got.sums);
    CHECK(other.totals.loss == got.totals.loss);
    CHECK(other.totals.correct == got.totals.correct);
    CHECK(other.totals.bad_row == got.totals.bad_row);
    CHECK(other.totals.weight == got.totals.weight);
  }
}

template <class T>
void check(int64_t rows, int64_t classes, bool wide, bool with_bad) {
  const auto logits = normal<T>(rows * classes, 3), dlosses = normal<T>(rows);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < rows; ++i) labels.push_back(static_cast<int64_t>(random_bits()() % uint64_t(classes)));
  if (with_bad && rows > 3) labels[3] = classes, labels[2] = -1;
  if (with_bad && rows > 5) labels[5] = std::numeric_limits<int64_t>::min();
  const std::vector<int32_t> narrow(labels.begin(), labels.end());
  const Labels view = wide ? Labels{labels.data(), true} : Labels{narrow.data(), false};
  CrossEntropyArguments<T> g{rows, classes, logits.data(), view};
  g.scale = T(1) / T(rows ? rows : 1);
  g.dlosses = rows % 2 ? dlosses.data() : nullptr;
  if (!wide && with_bad && rows > 5) return;  // int32 cannot hold the minimum of int64
  compare<T>(g);
}

// Checks every form of target: labels, smoothed or not, or probabilities, with weights of classes and rows, some of
// them 0.
template <class T>
void check_weights(int64_t rows, int64_t classes, bool soft, bool smooth, bool by_class, bool by_row, bool divide) {
  const auto logits = normal<T>(rows * classes, 3);
  std::vector<int64_t> labels;
  std::vector<T> targets, class_weights, weights;
  for (int64_t i = 0; i < rows; ++i) {
    labels.push_back(static_cast<int64_t>(random_bits()() % uint64_t(classes)));
    weights.push_back(i % 5 == 2 ? T(0) : T(random_bits()() % 1000) / 250);
    for (int64_t j = 0; j < classes; ++j) targets.push_back(T(random_bits()() % 1000) / (T(500) * T(classes)));
  }
  for (int64_t j = 0; j < classes; ++j) class_weights.push_back(j == 1 ? T(0) : T(random_bits()() % 1000) / 300);
  for (T& t : targets) t = t > 1 ? T(1) : t;
  CrossEntropyArguments<T> g{rows, classes, logits.data(), {labels.data(), true}};
  g.soft = soft ? targets.data() : nullptr;
  g.smoothing = smooth ? T(0.125) : T(0);
  g.class_weights = by_class ? class_weights.data() : nullptr;
  g.weights = by_row ? weights.data() : nullptr;
  g.divide = divide && (by_row || (by_class && !soft));
  g.scale = T(0.5);
  CAPTURE(soft);
  CAPTURE(smooth);
  CAPTURE(by_class);
  CAPTURE(by_row);
  compare<T>(g);
}

}  // namespace

TEST_CASE("cross_entropy matches the reference, with the same bits for any number of lanes") {
  for_each_isa([] {
    for (int64_t classes : {1, 2, 10, 16, 17, 33, 64, 100, 1000}) {
      for (int64_t rows : {0, 1, 5, 32, 33, 100}) {
        for (bool bad : {false, true}) {
          check<float>(rows, classes, true, bad);
          check<double>(rows, classes, true, bad);
          check<float>(rows, classes, false, bad);
        }
      }
    }
  });
}

TEST_CASE("cross_entropy takes smoothed labels, probabilities, and weights of classes and rows") {
  for_each_isa([] {
    for (int64_t classes : {1, 3, 16, 20, 64, 77, 300}) {
      for (int64_t rows : {0, 1, 33, 70}) {
        for (int form = 0; form < 16; ++form) {
          const bool divide = rows % 2;
          check_weights<float>(rows, classes, form & 1, form & 2, form & 4, form & 8, divide);
          check_weights<double>(rows, classes, form & 1, form & 2, form & 4, form & 8, divide);
        }
      }
    }
    check<float>(1000, 10, true, false);
    check<float>(1000, 100, true, true);
  });
}

TEST_CASE("cross_entropy counts the first of equal logits, and a NaN row as wrong") {
  for_each_isa([] {
    for (int64_t classes : {3, 100}) {
      std::vector<float> logits(static_cast<size_t>(classes), 1.0f);
      LossTotals totals;
      int64_t label = 0;
      CrossEntropyArguments<float> g{1, classes, logits.data(), {&label, true}};
      g.totals = &totals;
      cross_entropy<float>(Lane{}, g);
      CHECK(totals.correct == 1);
      label = 2;
      cross_entropy<float>(Lane{}, g);
      CHECK(totals.correct == 0);
      logits[0] = std::numeric_limits<float>::quiet_NaN();
      cross_entropy<float>(Lane{}, g);
      CHECK(totals.correct == 0);
      CHECK(std::isnan(totals.loss));
    }
  });
}

TEST_CASE("a bad label gives a row of zeros even where the logits are infinite") {
  for_each_isa([] {
    for (int64_t classes : {4, 100}) {
      std::vector<float> logits(static_cast<size_t>(classes), std::numeric_limits<float>::infinity());
      std::vector<float> d(logits.size(), 5.0f);
      LossTotals totals;
      const int64_t label = -7;
      CrossEntropyArguments<float> g{1, classes, logits.data(), {&label, true}};
      g.dlogits = d.data(), g.totals = &totals;
      cross_entropy<float>(Lane{}, g);
      for (float value : d) CHECK(value == 0);
      CHECK(totals.loss == 0);
      CHECK(totals.bad_row == 0);
    }
  });
}

TEST_CASE("probabilities of a row that do not add up to 1 are a bad row") {
  for_each_isa([] {
    for (int64_t classes : {2, 16, 17, 300}) {
      for (const double sum : {0.0, 0.9, 0.985, 0.995, 1.0, 1.004, 1.02, 2.0}) {
        const std::vector<float> logits(static_cast<size_t>(2 * classes), 1.0f);
        std::vector<float> soft(logits.size(), 0.0f);
        soft[0] = 1, soft[static_cast<size_t>(classes)] = soft.back() = static_cast<float>(sum / 2);
        LossTotals totals;
        CrossEntropyArguments<float> g{2, classes, logits.data(), {}};
        g.soft = soft.data(), g.totals = &totals;
        cross_entropy<float>(Lane{}, g);
        CHECK(totals.bad_row == (std::abs(sum - 1) < 0.01 ? -1 : 1));
      }
    }
  });
}

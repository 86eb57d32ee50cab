#include "ops/batch_norm/batch_norm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "ops/batch_norm/batch_norm_ref.h"
#include "ops/batch_norm/merge.h"
#include "ops/testing.h"

using namespace gradring;
using gradring::testing::normal;

namespace {

constexpr double kEps = 1e-3;

template <class T>
struct Case {
  int64_t rows, columns;
  bool affine;
  std::vector<T> x, dy, weight, bias, running_mean, running_var;

  Case(int64_t r, int64_t c, bool a, double offset = 0)
      : rows(r),
        columns(c),
        affine(a),
        x(normal<T>(r * c)),
        dy(normal<T>(r * c)),
        weight(normal<T>(c)),
        bias(normal<T>(c)),
        running_mean(normal<T>(c)),
        running_var(normal<T>(c)) {
    for (T& value : x) value += static_cast<T>(offset);
    for (T& value : running_var) value = value * value + T(0.1);
  }
};

// Returns y, the running mean and variance, and the batch's mean and variance, one after another.
template <class T>
std::vector<T> forward(const Case<T>& c, bool training, int lanes) {
  const size_t n = c.x.size(), k = static_cast<size_t>(c.columns);
  std::vector<T> results(n + 4 * k + 1, T(77));
  T* y = results.data();
  std::copy(c.running_mean.begin(), c.running_mean.end(), y + n);
  std::copy(c.running_var.begin(), c.running_var.end(), y + n + k);
  BatchNormArguments<T> g;
  g.rows = c.rows, g.columns = c.columns, g.x = c.x.data(), g.y = y;
  if (c.affine) g.weight = c.weight.data(), g.bias = c.bias.data();
  g.running_mean = y + n, g.running_var = y + n + k, g.mean = y + n + 2 * k, g.variance = y + n + 3 * k;
  g.training = training, g.momentum = 0.25, g.eps = kEps;
  Team& team = testing::team_of(lanes);
  const ScratchBytes scratch = batch_norm_scratch(c.rows, c.columns, sizeof(T), training);
  team.reserve(scratch.per_lane, scratch.shared);
  team.run(lanes, [&](const Lane& lane) { batch_norm(lane, g); });
  REQUIRE(results.back() == T(77));
  results.pop_back();
  return results;
}

// Returns dx, dweight and dbias one after another. `moments` are the batch's, or in evaluation the running ones; or
// null.
template <class T>
std::vector<T> backward(const Case<T>& c, bool training, const T* moments, int lanes) {
  const size_t n = c.x.size(), k = static_cast<size_t>(c.columns);
  std::vector<T> results(n + 2 * k + 1, T(77));
  BatchNormVjpArguments<T> g;
  g.rows = c.rows, g.columns = c.columns, g.dy = c.dy.data(), g.x = c.x.data();
  if (moments) g.mean = moments, g.variance = moments + k;
  if (c.affine) g.weight = c.weight.data();
  g.dx = results.data(), g.dweight = g.dx + n, g.dbias = g.dweight + k;
  g.training = training, g.eps = kEps;
  Team& team = testing::team_of(lanes);
  const ScratchBytes scratch = batch_norm_vjp_scratch(c.rows, c.columns, sizeof(T));
  team.reserve(scratch.per_lane, scratch.shared);
  team.run(lanes, [&](const Lane& lane) { batch_norm_vjp(lane, g); });
  REQUIRE(results.back() == T(77));
  results.pop_back();
  return results;
}

template <class T>
bool near(T got, double want, double bound) {
  return std::fabs(double(got) - want) <= bound;
}

template <class T>
void check(const Case<T>& c, bool training, double offset = 0) {
  CAPTURE(c.rows);
  CAPTURE(c.columns);
  CAPTURE(training);
  // The mean may be off by some units in its last place, which shifts all of y.
  const double bound = 100 * double(std::numeric_limits<T>::epsilon()) * (1 + std::fabs(offset));
  const size_t n = c.x.size(), k = static_cast<size_t>(c.columns);
  const std::vector<T> y = forward(c, training, 1);
  std::vector<T> running = c.running_mean;
  running.insert(running.end(), c.running_var.begin(), c.running_var.end());
  const T* moments = training ? y.data() + n + 2 * k : running.data();
  const std::vector<T> got = backward(c, training, moments, 1);
  if (training) REQUIRE(got == backward<T>(c, true, nullptr, 1));
  for (int64_t j = 0; j < c.columns; ++j) {
    const auto at = static_cast<size_t>(j);
    const auto batch = reference::column_moments(c.x, c.rows, c.columns, j);
    const reference::ColumnMoments m =
        training ? batch : reference::ColumnMoments{double(c.running_mean[at]), double(c.running_var[at])};
    const double r = 1 / std::sqrt(m.variance + kEps), w = c.affine ? double(c.weight[at]) : 1;
    const double rows = double(c.rows), unbiased = c.rows > 1 ? batch.variance * rows / (rows - 1) : batch.variance;
    const double kept_mean = training ? 0.75 * c.running_mean[at] + 0.25 * batch.mean : c.running_mean[at];
    const double kept_var = training ? 0.75 * c.running_var[at] + 0.25 * unbiased : c.running_var[at];
    REQUIRE(near(y[n + at], kept_mean, bound));
    REQUIRE(near(y[n + k + at], kept_var, bound * (1 + unbiased)));
    double dweight = 0, dbias = 0, sizes = 0;
    auto dx = reference::batch_norm_column_vjp(c.dy, c.x, w, m, c.rows, c.columns, j, kEps);
    for (int64_t i = 0; i < c.rows; ++i) {
      const auto place = static_cast<size_t>(i * c.columns + j);
      const double hat = (c.x[place] - m.mean) * r;
      REQUIRE(near(y[place], hat * w + (c.affine ? double(c.bias[at]) : 0), bound * r * (2 + std::fabs(w))));
      if (!training) dx[size_t(i)] = c.dy[place] * w * r;
      dweight += c.dy[place] * hat, dbias += c.dy[place], sizes += std::fabs(c.dy[place]) * (1 + std::fabs(hat));
    }
    for (int64_t i = 0; i < c.rows; ++i) {
      const auto place = static_cast<size_t>(i * c.columns + j);
      REQUIRE(near(got[place], dx[size_t(i)], bound * r * r * (2 + std::fabs(w)) * (4 + sizes / rows)));
    }
    REQUIRE(near(got[n + at], dweight, bound * (1 + sizes) * r * (1 + std::sqrt(m.variance))));
    REQUIRE(near(got[n + k + at], dbias, bound * (1 + sizes)));
  }
}

template <class T>
void check_sizes() {
  for (const bool training : {true, false}) {
    for (const int64_t columns : {1, 3, 4, 8, 15, 16, 17, 33, 64, 65, 130}) {
      for (const int64_t rows : {1, 2, 5, 31, 32, 33, 65, 100}) {
        check(Case<T>(rows, columns, (rows + columns) % 3 != 0), training);
      }
    }
    check(Case<T>(70, 20, true, 30), training, 30);
  }
}

}  // namespace

TEST_CASE("batch_norm agrees with the reference at every level, for odd sizes and a mean far from 0") {
  testing::for_each_isa([] {
    check_sizes<float>();
    check_sizes<double>();
  });
}

TEST_CASE("batch_norm has the same bits for any number of lanes") {
  testing::for_each_isa([] {
    const Case<float> c(203, 65, true, 1);
    for (const bool training : {true, false}) {
      const std::vector<float> y = forward(c, training, 1), results = backward(c, training, y.data() + c.x.size(), 1);
      for (const int lanes : {2, 3, 7}) {
        REQUIRE(forward(c, training, lanes) == y);
        REQUIRE(backward(c, training, y.data() + c.x.size(), lanes) == results);
      }
      if (!training) continue;
      const std::vector<float> again = backward<float>(c, true, nullptr, 1);
      for (const int lanes : {2, 3, 7}) REQUIRE(backward<float>(c, true, nullptr, lanes) == again);
    }
  });
}

TEST_CASE("batch_norm of a column with NaN or infinity is NaN, and leaves other columns alone") {
  testing::for_each_isa([] {
    Case<float> c(70, 19, true);
    const std::vector<float> before = forward(c, true, 1);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      c.x[40 * 19 + 5] = bad;
      const std::vector<float> y = forward(c, true, 1);
      for (size_t i = 0; i < c.x.size() + 4 * 19; ++i) {
        const bool hit = i % 19 == 5;
        REQUIRE((hit ? std::isnan(y[i]) || std::isinf(y[i]) : y[i] == before[i]));
      }
      for (size_t i = 0; i < 70; ++i) REQUIRE(std::isnan(y[i * 19 + 5]));
    }
  });
}

TEST_CASE("batch_norm of no rows changes nothing, and its gradients are 0") {
  const Case<float> c(0, 7, true);
  const std::vector<float> y = forward(c, true, 2);
  REQUIRE(std::memcmp(y.data(), c.running_mean.data(), 7 * sizeof(float)) == 0);
  REQUIRE(backward<float>(c, true, nullptr, 2) == std::vector<float>(14, 0.0f));
}

TEST_CASE("batch_norm_update moves running moments as the forward pass does") {
  testing::for_each_isa([] {
    const Case<double> c(90, 33, true);
    const std::vector<double> y = forward(c, true, 1);
    const size_t n = c.x.size();
    std::vector<double> mean = c.running_mean, variance = c.running_var;
    BatchNormUpdateArguments<double> g;
    g.rows = 90, g.columns = 33, g.running_mean = mean.data(), g.running_var = variance.data();
    g.mean = y.data() + n + 66, g.variance = y.data() + n + 99, g.momentum = 0.25;
    Team team(2);
    team.run(2, [&](const Lane& lane) { batch_norm_update(lane, g); });
    for (size_t j = 0; j < 33; ++j) {
      REQUIRE(mean[j] == y[n + j]);
      REQUIRE(variance[j] == y[n + 33 + j]);
    }
  });
}

TEST_CASE("the moments of parts are merged into those of all rows, and parts without rows count for nothing") {
  const int64_t columns = 5, each = 3;
  for (const int64_t count : {1, 2, 3, 8}) {
    for (int trial = 0; trial < 20; ++trial) {
      const int64_t stride = 1 + 2 * columns;
      std::vector<double> parts(static_cast<size_t>(count * stride), 77.0), all;
      for (int64_t p = 0; p < count; ++p) {
        const int64_t rows = trial == 0 ? 0 : testing::uniform(0, 4), numbers = rows * each;
        const Case<double> c(numbers, columns, false, 100.0 * static_cast<double>(p));
        double* const part = parts.data() + p * stride;
        part[0] = static_cast<double>(rows);
        all.insert(all.end(), c.x.begin(), c.x.end());
        for (int64_t j = 0; numbers > 0 && j < columns; ++j) {
          const reference::ColumnMoments m = reference::column_moments(c.x, numbers, columns, j);
          part[1 + j] = m.mean, part[1 + columns + j] = m.variance;
        }
      }
      const auto rows = static_cast<int64_t>(all.size()) / columns;
      std::vector<double> mean(static_cast<size_t>(columns), 0.5), variance(static_cast<size_t>(columns), 2.0);
      merge_moments<double>({parts.data(), count, stride, 1, 1 + columns, columns, static_cast<double>(each), 0.25,
                             mean.data(), variance.data()},
                            0, columns);
      for (int64_t j = 0; j < columns; ++j) {
        const auto at = static_cast<size_t>(j);
        if (rows == 0) {
          REQUIRE(mean[at] == 0.5);
          REQUIRE(variance[at] == 2.0);
          continue;
        }
        const reference::ColumnMoments m = reference::column_moments(all, rows, columns, j);
        REQUIRE(mean[at] == doctest::Approx(0.5 * 0.75 + m.mean * 0.25).epsilon(1e-12));
        const double unbiased = m.variance * static_cast<double>(rows) / static_cast<double>(rows - 1);
        REQUIRE(variance[at] == doctest::Approx(2.0 * 0.75 + unbiased * 0.25).epsilon(1e-9));
      }
    }
  }
}

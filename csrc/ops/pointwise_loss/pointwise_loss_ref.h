// The reference: scalar, in double.
#pragma once

#include <cmath>
#include <vector>

#include "ops/pointwise_loss/pointwise_loss.h"

namespace gradring::reference {

struct PointwiseLoss {
  std::vector<double> losses, gradient, column_sums;
  LossTotals totals;
};

template <class T>
PointwiseLoss pointwise_loss(const PointwiseLossArguments<T>& g) {
  PointwiseLoss result;
  result.column_sums.assign(static_cast<size_t>(g.columns), 0);
  const bool mse = g.kind == gradring::PointwiseLoss::kMse;
  for (int64_t i = 0; i < g.rows; ++i) {
    double loss = 0;
    bool right = !mse;
    for (int64_t j = 0; j < g.columns; ++j) {
      const double p = g.predictions[i * g.columns + j], t = g.targets[i * g.columns + j];
      if (mse) {
        loss += (p - t) * (p - t);
      } else if (std::isinf(p)) {
        loss += t == (p > 0) ? 0 : INFINITY;
      } else {
        loss += std::fmax(p, 0) - p * t + std::log1p(std::exp(-std::fabs(p)));
      }
      if (!mse && !(t >= 0 && t <= 1) && result.totals.bad_row < 0) result.totals.bad_row = i;
      const double slope = mse ? 2 * (p - t) : 1 / (1 + std::exp(-p)) - t;
      const double d =
          slope * double(g.scale) * (g.dlosses ? double(g.dlosses[i]) : 1.0) / static_cast<double>(g.columns);
      result.gradient.push_back(d);
      result.column_sums[static_cast<size_t>(j)] += d;
      right = right && (p > 0) == (t > 0.5);
    }
    loss /= static_cast<double>(g.columns);
    result.losses.push_back(loss);
    result.totals.loss += loss;
    result.totals.correct += right;
  }
  return result;
}

}  // namespace gradring::reference

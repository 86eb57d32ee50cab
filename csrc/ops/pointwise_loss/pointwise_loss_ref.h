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
  using Kind = gradring::PointwiseLoss;
  const bool binary = g.kind == Kind::kBinaryCrossEntropy, weighted = g.weights || g.class_weights;
  for (int64_t i = 0; i < g.rows; ++i) {
    double loss = 0, factor = g.weights ? double(g.weights[i]) : 1;
    if (g.class_weights) {
      const double t = g.targets[i], zero = g.class_weights[0], one = g.class_weights[1];
      factor *= zero + t * (one - zero);
    }
    if (weighted) result.totals.weight += factor;
    if (weighted && !(factor >= 0 && std::isfinite(factor)) && result.totals.bad_weight < 0) {
      result.totals.bad_weight = i;
    }
    bool right = binary;
    for (int64_t j = 0; j < g.columns; ++j) {
      const double p = g.predictions[i * g.columns + j], t = g.targets[i * g.columns + j];
      const double weight = g.pos_weights ? double(g.pos_weights[j]) : 1, delta = g.delta, far = std::fabs(p - t);
      if (g.kind == Kind::kMse) {
        loss += far * far;
      } else if (g.kind == Kind::kMae) {
        loss += far;
      } else if (g.kind == Kind::kHuber) {
        loss += far <= delta ? far * far / 2 : delta * (far - delta / 2);
      } else if (g.pos_weights && !std::isinf(p)) {
        const double soft = std::log1p(std::exp(-std::fabs(p)));
        loss += weight * t * (std::fmax(-p, 0) + soft) + (1 - t) * (std::fmax(p, 0) + soft);
      } else if (std::isinf(p)) {
        loss += t == (p > 0) ? 0 : INFINITY;
      } else {
        loss += std::fmax(p, 0) - p * t + std::log1p(std::exp(-std::fabs(p)));
      }
      if (binary && !(t >= 0 && t <= 1) && result.totals.bad_row < 0) result.totals.bad_row = i;
      const double sigmoid = 1 / (1 + std::exp(-p)), rest = 1 / (1 + std::exp(p));
      double slope = (1 - t) * sigmoid - weight * t * rest;
      if (g.kind == Kind::kMse) slope = 2 * (p - t);
      if (g.kind == Kind::kMae) slope = p == t ? 0 : std::copysign(1.0, p - t);
      if (g.kind == Kind::kHuber) slope = far <= delta ? p - t : std::copysign(delta, p - t);
      const double d =
          slope * double(g.scale) * factor * (g.dlosses ? double(g.dlosses[i]) : 1.0) / static_cast<double>(g.columns);
      result.gradient.push_back(d);
      result.column_sums[static_cast<size_t>(j)] += d;
      right = right && (p > 0) == (t > 0.5);
    }
    loss *= factor / static_cast<double>(g.columns);
    result.losses.push_back(loss);
    result.totals.loss += loss;
    result.totals.correct += right;
  }
  if (!g.divide) return result;
  const double total = result.totals.weight;
  for (double& d : result.gradient) d = total == 0 ? 0 : d / total;
  for (double& d : result.column_sums) d = total == 0 ? 0 : d / total;
  return result;
}

}  // namespace gradring::reference

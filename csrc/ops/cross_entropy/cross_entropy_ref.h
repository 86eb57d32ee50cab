// The reference: scalar, in double.
#pragma once

#include <cmath>
#include <vector>

#include "ops/cross_entropy/cross_entropy.h"
#include "ops/softmax/softmax_ref.h"

namespace gradring::reference {

struct CrossEntropy {
  std::vector<double> losses, dlogits, column_sums;
  LossTotals totals;
};

template <class T>
CrossEntropy cross_entropy(const CrossEntropyArguments<T>& g) {
  CrossEntropy result;
  result.column_sums.assign(static_cast<size_t>(g.classes), 0);
  const bool weighted = g.weights || (g.class_weights && !g.soft);
  for (int64_t i = 0; i < g.rows; ++i) {
    const T* x = g.logits + i * g.classes;
    int64_t label = g.soft ? 0 : g.labels[i];
    bool good = label >= 0 && label < g.classes;
    double sum = 0;
    for (int64_t j = 0; g.soft && j < g.classes; ++j) {
      const T t = g.soft[i * g.classes + j];
      sum += double(t);
      if (!(t >= 0 && t <= 1) && result.totals.bad_row < 0) result.totals.bad_row = i;
      if (t > g.soft[i * g.classes + label]) label = j;
    }
    // The kernel's own comparison, because the sums of some random rows lie on the border.
    const bool whole = sum >= 1 - kSumError && sum <= 1 + kSumError;
    if (g.soft && !whole && result.totals.bad_row < 0) result.totals.bad_row = i;
    if (!good && result.totals.bad_row < 0) result.totals.bad_row = i;
    const auto logs = softmax(x, g.classes, true);
    std::vector<double> shares(static_cast<size_t>(g.classes), 0);
    double share = 0, loss = 0;
    for (int64_t j = 0; good && j < g.classes; ++j) {
      const auto at = static_cast<size_t>(j);
      const double t = g.soft ? double(g.soft[i * g.classes + j]) : double(j == label);
      const double weight = g.class_weights ? double(g.class_weights[j]) : 1;
      shares[at] = weight * ((1 - double(g.smoothing)) * t + double(g.smoothing) / static_cast<double>(g.classes));
      share += shares[at];
      if (shares[at] != 0) loss -= shares[at] * logs[at];
    }
    const double factor = g.weights ? double(g.weights[i]) : 1;
    if (weighted) {
      const double weight = g.class_weights && !g.soft ? (good ? factor * double(g.class_weights[label]) : 0) : factor;
      result.totals.weight += weight;
      if (!(weight >= 0 && std::isfinite(weight)) && result.totals.bad_weight < 0) result.totals.bad_weight = i;
    }
    loss *= factor;
    result.losses.push_back(loss);
    result.totals.loss += loss;
    int64_t best = 0;
    for (int64_t j = 1; j < g.classes; ++j) best = x[j] > x[best] ? j : best;
    result.totals.correct += good && best == label;
    const double scale = good ? double(g.scale) * factor * (g.dlosses ? double(g.dlosses[i]) : 1.0) : 0;
    for (int64_t j = 0; j < g.classes; ++j) {
      const auto at = static_cast<size_t>(j);
      const double d = good ? (std::exp(logs[at]) * share - shares[at]) * scale : 0;
      result.dlogits.push_back(d);
      result.column_sums[at] += d;
    }
  }
  if (!g.divide) return result;
  const double total = result.totals.weight;
  for (double& d : result.dlogits) d = total == 0 ? 0 : d / total;
  for (double& d : result.column_sums) d = total == 0 ? 0 : d / total;
  return result;
}

}  // namespace gradring::reference

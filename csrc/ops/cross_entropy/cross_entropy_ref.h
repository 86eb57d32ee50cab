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
  for (int64_t i = 0; i < g.rows; ++i) {
    const T* x = g.logits + i * g.classes;
    const int64_t label = g.labels[i];
    const bool good = label >= 0 && label < g.classes;
    if (!good && result.totals.bad_row < 0) result.totals.bad_row = i;
    const auto logs = softmax(x, g.classes, true);
    const double loss = good ? -logs[static_cast<size_t>(label)] : 0;
    result.losses.push_back(loss);
    result.totals.loss += loss;
    int64_t best = 0;
    for (int64_t j = 1; j < g.classes; ++j) best = x[j] > x[best] ? j : best;
    result.totals.correct += good && best == label;
    const double scale = good ? double(g.scale) * (g.dlosses ? double(g.dlosses[i]) : 1.0) : 0;
    for (int64_t j = 0; j < g.classes; ++j) {
      const auto at = static_cast<size_t>(j);
      const double d = good ? (std::exp(logs[at]) - (j == label)) * scale : 0;
      result.dlogits.push_back(d);
      result.column_sums[at] += d;
    }
  }
  return result;
}

}  // namespace gradring::reference

// The reference: a column's sum in double, one element at a time.
#pragma once

#include "ops/column_sums/column_sums.h"

namespace gradring::reference {

template <class T>
double column_sum(const ColumnSumsArguments<T>& g, int64_t column) {
  double sum = 0;
  for (int64_t i = 0; i < g.rows; ++i) sum += static_cast<double>(g.x[i * g.ldx + column]);
  return sum;
}

}  // namespace gradring::reference

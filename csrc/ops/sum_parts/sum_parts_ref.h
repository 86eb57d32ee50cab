// The reference: scalar, in the element's own precision, since the bits are promised.
#pragma once

#include "ops/sum_parts/sum_parts.h"

namespace gradring::reference {

template <class T>
T sum_parts(const SumPartsArguments<T>& g, int64_t row, int64_t column) {
  const int64_t i = row * g.columns + column;
  T v = g.first[i] + g.second[i];
  if (g.bias) v += g.bias[column];
  return g.relu && v < T(0) ? T(0) : v;
}

}  // namespace gradring::reference

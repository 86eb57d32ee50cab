// The reference: scalar, one block.
#pragma once

#include <cmath>
#include <limits>

#include "ops/largest/largest.h"

namespace gradring::reference {

template <class T>
T largest(const LargestArguments<T>& g, int64_t block) {
  T most = 0;
  for (int64_t i = block * kLargestBlock; i < g.n && i < (block + 1) * kLargestBlock; ++i) {
    const T size = std::abs(g.x[i]);
    if (std::isnan(size)) return std::numeric_limits<T>::quiet_NaN();
    if (size > most) most = size;
  }
  return most;
}

}  // namespace gradring::reference

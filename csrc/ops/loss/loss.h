// Types that all losses share: labels, the totals of a batch, and the layout of the reduction over its blocks of rows.
#pragma once

#include <cstdint>

#include "ops/row_blocks.h"

namespace gradring {

// Class numbers, int32 or int64.
struct Labels {
  const void* data = nullptr;
  bool wide = true;  // int64

  [[gnu::always_inline]] int64_t operator[](int64_t row) const noexcept {
    return wide ? static_cast<const int64_t*>(data)[row] : static_cast<const int32_t*>(data)[row];
  }
};

// The weights of a batch must add up to 0 or to at least this, because single precision cannot divide by much smaller sums.
inline constexpr double kLeastWeight = 1e-30;

// The totals of a batch. Lane 0 writes them, and the others may read them after a barrier.
struct LossTotals {
  double loss = 0;          // the sum of the rows' losses
  int64_t correct = 0;      // rows whose prediction is right
  int64_t bad_row = -1;     // the first row whose label or probability is out of range; a bad label adds nothing
  double weight = 0;        // the sum of the rows' weights, where there are weights; else undefined
  int64_t bad_weight = -1;  // the first row whose weight is negative, infinite or NaN
};

// Whether the weights of a batch cannot weigh its losses. `need`: they may not all be 0.
constexpr bool weights_fail(const LossTotals& totals, bool need) noexcept {
  return totals.bad_weight >= 0 || (need && totals.weight == 0) || (totals.weight > 0 && totals.weight < kLeastWeight);
}

// The shared scratch memory of a loss has the blocks' totals, then their column sums.
template <class T>
ScratchBytes loss_scratch(int64_t rows, int64_t columns, bool column_sums) noexcept {
  const size_t blocks = static_cast<size_t>(row_blocks(rows));
  const size_t sums = column_sums ? blocks * static_cast<size_t>(columns) * sizeof(T) : 0;
  return {0, blocks * sizeof(LossTotals) + sums};
}

}  // namespace gradring

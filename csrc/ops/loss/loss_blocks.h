// A function for the losses' kernels: it runs a body over the blocks of rows, and adds up the totals that the body returns.
#pragma once

#include <limits>

#include "ops/loss/loss.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The sum of a block's losses, in double. Places after the last row hold 0.
template <class T>
GRADRING_INLINE double sum_of_block(const T (&losses)[kRowBlock]) noexcept {
  double sums[8] = {};
  for (int r = 0; r < kRowBlock; r += 8) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) sums[k] += static_cast<double>(losses[r + k]);
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// Whether a sample's weight is legal: finite, and not negative.
template <class T>
GRADRING_INLINE bool good_weight(T weight) noexcept {
  return weight >= 0 && weight <= std::numeric_limits<T>::max();
}

// The sum of all rows' weights. Each lane computes it for itself, in the order in which blocks' totals are added.
template <class T, class WeightOf>
GRADRING_INLINE double total_weight(int64_t rows, WeightOf weight_of) noexcept {
  double total = 0;
  for (int64_t begin = 0; begin < rows; begin += kRowBlock) {
    T weights[kRowBlock] = {};
    for (int64_t r = begin; r < rows && r < begin + kRowBlock; ++r) weights[r - begin] = weight_of(r);
    total += sum_of_block<T>(weights);
  }
  return total;
}

// The factor of a weighted mean's gradients. It is 0 if all weights are 0.
template <class T>
GRADRING_INLINE T weighted_scale(T scale, double total) noexcept {
  return total == 0 ? T(0) : static_cast<T>(static_cast<double>(scale) / total);
}

// Calls body(first row, last row, block's column sums or null), which returns LossTotals. The last two may be null.
template <class T, class Body>
GRADRING_INLINE void for_loss_blocks(Lane lane, int64_t rows, int64_t columns, T* column_sums, LossTotals* totals,
                                     Body body) noexcept {
  const int64_t blocks = row_blocks(rows);
  if (blocks <= 1 || rows * columns <= kOneLaneElements) {
    if (lane.index != 0) return;
    lane.count = 1;
  }
  auto* block_totals = reinterpret_cast<LossTotals*>(lane.team ? lane.shared_scratch() : nullptr);
  LossTotals only;
  if (blocks <= 1) block_totals = &only;
  T* block_sums = blocks <= 1 ? column_sums : reinterpret_cast<T*>(block_totals + blocks);
  const Range mine = split(lane, blocks);
  for (int64_t b = mine.begin; b < mine.end; ++b) {
    const int64_t end = (b + 1) * kRowBlock;
    block_totals[b] = body(b * kRowBlock, end < rows ? end : rows, column_sums ? block_sums + b * columns : nullptr);
  }
  if (lane.count > 1) lane.barrier();
  if (totals && lane.index == 0) {
    LossTotals sum;
    for (int64_t b = 0; b < blocks; ++b) {
      sum.loss += block_totals[b].loss;
      sum.correct += block_totals[b].correct;
      if (sum.bad_row < 0) sum.bad_row = block_totals[b].bad_row;
      sum.weight += block_totals[b].weight;
      if (sum.bad_weight < 0) sum.bad_weight = block_totals[b].bad_weight;
    }
    *totals = sum;
  }
  if (!column_sums || blocks == 1) return;  // one block wrote column_sums itself
  const Range part = split(lane, columns, 64 / static_cast<int64_t>(sizeof(T)));
  for (int64_t j = part.begin; j < part.end; ++j) {
    T sum = 0;
    for (int64_t b = 0; b < blocks; ++b) sum += block_sums[b * columns + j];
    column_sums[j] = sum;
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

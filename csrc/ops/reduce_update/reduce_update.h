// reduce_update: what data-parallel ranks do between the backward pass and the optimizer. Each rank has made the gradients of its
// own rows in a plane of its own. The ranks meet (runtime/meeting.h) and decide whether the step may change anything, and then
// each rank sums its part of all planes, in rank order, for the optimizer's own ops.
//
// It adds the planes in rank order, so the bits depend on neither parts, lanes nor vector widths (ops/combine). With shards, it
// adds them in a binary tree instead: the planes of a rank are then a subtree, so the bits do not depend on how many ranks share
// the shards. Numbers that ranks bring to a meeting are added in the same tree.
#pragma once

#include <cstdint>

#include "ops/step_record.h"
#include "runtime/dtype.h"
#include "runtime/lane.h"
#include "runtime/meeting.h"

namespace gradring {

// `planes` has `ranks` rows of `columns` elements. Sums the columns from `begin` to `begin + count` of all rows into `sum`,
// which may be these columns of one of the rows. `tree`: in the order of tree_sum, else row after row.
struct SumPlanes {
  Dtype dtype = Dtype::kFloat32;
  const std::byte* planes = nullptr;
  int64_t ranks = 0, columns = 0;
  int64_t begin = 0, count = 0;
  std::byte* sum = nullptr;
  bool tree = false;
};

// How many of `count` summands the left half of the tree has: the largest power of two below count.
constexpr int64_t left_of_tree(int64_t count) noexcept {
  int64_t left = 1;
  while (left * 2 < count) left *= 2;
  return left;
}

// The sum of value(first), ..., value(first + count - 1) in a binary tree. A power of two of neighbours, beginning at one of its
// multiples, is a subtree.
template <class F>
constexpr double tree_sum(int64_t first, int64_t count, const F& value) noexcept {
  if (count <= 1) return count == 1 ? value(first) : 0.0;
  const int64_t left = left_of_tree(count);
  return tree_sum(first, left, value) + tree_sum(first + left, count - left, value);
}

void sum_planes(const Lane& lane, const SumPlanes& arguments) noexcept;

// What every rank concludes from the numbers that all have brought to a meeting.
struct MeetingTotals {
  double loss_sum = 0;
  double loss_weight = 0;
  int64_t correct = 0;
  double bound = 0;            // no element of the sum of all planes is larger than this
  Fault fault = Fault::kNone;  // the first rank's that has one
};

MeetingTotals totals_of(const Meeting& meeting) noexcept;

// Whether a sum of elements with this bound may be infinite, though no plane is. A quarter of the largest number leaves room
// for the rounding of the sum.
bool may_overflow(double bound, Dtype dtype) noexcept;

}  // namespace gradring

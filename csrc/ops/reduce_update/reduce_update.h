// reduce_update: what data-parallel ranks do between the backward pass and the optimizer. Each rank has made the gradients of its
// own rows in a plane of its own. The ranks meet (runtime/meeting.h) and decide whether the step may change anything, and then
// each rank sums its part of all planes, in rank order, for the optimizer's own ops.
//
// It adds the planes in rank order, so the bits depend on neither parts, lanes nor vector widths (ops/combine).
#pragma once

#include <cstdint>

#include "gradring/export.h"
#include "ops/step_record.h"
#include "runtime/dtype.h"
#include "runtime/lane.h"
#include "runtime/meeting.h"

namespace gradring {

// `planes` has `ranks` rows of `columns` elements. Sums the columns from `begin` to `begin + count` of all rows into `sum`,
// which may be these columns of one of the rows.
struct SumPlanes {
  Dtype dtype = Dtype::kFloat32;
  const std::byte* planes = nullptr;
  int64_t ranks = 0, columns = 0;
  int64_t begin = 0, count = 0;
  std::byte* sum = nullptr;
};

GRADRING_API void sum_planes(const Lane& lane, const SumPlanes& arguments) noexcept;

// What every rank concludes from the numbers that all have brought to a meeting.
struct Verdict {
  double loss_sum = 0;
  double loss_weight = 0;
  int64_t correct = 0;
  double bound = 0;            // no element of the sum of all planes is larger than this
  Fault fault = Fault::kNone;  // the first rank's that has one
};

GRADRING_API Verdict verdict_of(const Meeting& meeting) noexcept;

// Whether a sum of elements with this bound may be infinite, though no plane is. A quarter of the largest number leaves room
// for the rounding of the sum.
GRADRING_API bool may_overflow(double bound, Dtype dtype) noexcept;

}  // namespace gradring

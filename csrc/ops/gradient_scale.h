// The factor by which an optimizer multiplies gradients: they may be sums over micro-batches, and may have to be
// clipped.
#pragma once

#include "ops/op.h"

namespace gradring {

// `clip` and `weight` are optional operands that are fields of the step record.
inline double gradient_scale(const OpCall& call, int clip, int weight) noexcept {
  const double total = call[weight] ? call.value<double>(weight) : 1.0;
  if (total == 0) return 0;  // no sample had a weight, so the sums of the gradients are zero
  return (call[clip] ? call.value<double>(clip) : 1.0) / total;
}

}  // namespace gradring

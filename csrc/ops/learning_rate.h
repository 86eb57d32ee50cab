// Finds the learning rate that an optimizer's instruction uses, because a parameter group may have a rate of its own.
#pragma once

#include "ops/op.h"

namespace gradring {

// The attribute by which an instruction names one of the update's learning rates; 0 is the first.
inline constexpr Attribute kRateAttribute = {
    .name = "rate", .type = AttributeType::kInt, .otherwise = integer_value(0), .least = 0};

// `lr` is the operand that holds the step's learning rate.
inline double learning_rate(const OpCall& call, int lr, int attribute) noexcept {
  const int64_t which = call.integer(attribute);
  return which == 0 ? call.value<double>(lr) : call.step->rate(which);
}

}  // namespace gradring

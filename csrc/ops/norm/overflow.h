// What a step does when its gradients are found to be infinite or NaN.
#pragma once

#include "ops/step_record.h"

namespace gradring {

inline void take_infinity(StepRecord* step) noexcept {
  if (step->may_skip()) {
    step->fault = Fault::kOverflow;
  } else if (step->check_finite) {
    step->fault = Fault::kGradient;
  }
}

}  // namespace gradring

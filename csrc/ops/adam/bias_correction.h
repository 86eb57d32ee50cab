// The scalars of Adam's step, in double.
#pragma once

#include <cstdint>

namespace gradring {

struct AdamFactors {
  double step_size;  // lr / (1 - beta1^step)
  double root;       // 1 / sqrt(1 - beta2^step)
};

AdamFactors adam_factors(int64_t step, double lr, double beta1, double beta2) noexcept;

}  // namespace gradring

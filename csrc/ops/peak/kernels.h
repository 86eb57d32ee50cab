// The table that peak_cpu.cc fills once per ISA level.
#pragma once

#include <cstdint>

#include "ops/dispatch.h"

namespace gradring {

struct PeakKernels {
  int operations;                          // of one round
  float (*work)(int64_t rounds) noexcept;  // returns something, so that it is not optimized away
};

GRADRING_DECLARE_KERNELS(PeakKernels, peak_kernels)

}  // namespace gradring

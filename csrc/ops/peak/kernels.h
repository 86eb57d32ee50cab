// The table that peak_cpu.cc fills once per ISA level.
#pragma once

#include <cstdint>

#include "ops/dispatch.h"

namespace gradring {

struct PeakKernel {
  int operations;  // how many operations one round takes
  // Computes chains of x = x * numbers[1] + numbers[2], which begin at multiples of numbers[0]. Returns their sum.
  float (*work)(int64_t rounds, const float* numbers) noexcept;
};
struct PeakKernels {
  PeakKernel f32, f64;
};

GRADRING_DECLARE_KERNELS(PeakKernels, peak_kernels)

}  // namespace gradring

// The entry points that norm_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/norm/norm.h"

namespace gradring {

using SumOfSquaresKernel = Kernel<SumOfSquaresArguments>;

GRADRING_DECLARE_KERNELS(SumOfSquaresKernel, sum_of_squares_kernel)

}  // namespace gradring

// The entry points that sum_parts_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/sum_parts/sum_parts.h"

namespace gradring {

using SumPartsKernel = Kernel<SumPartsArguments>;

GRADRING_DECLARE_KERNELS(SumPartsKernel, sum_parts_kernel)

}  // namespace gradring

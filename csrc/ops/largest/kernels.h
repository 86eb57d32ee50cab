// The entry points that largest_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/largest/largest.h"

namespace gradring {

using LargestKernel = Kernel<LargestArguments>;

GRADRING_DECLARE_KERNELS(LargestKernel, largest_kernel)

}  // namespace gradring

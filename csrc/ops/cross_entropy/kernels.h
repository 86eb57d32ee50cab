// The entry points that cross_entropy_cpu.cc defines once per ISA level.
#pragma once

#include "ops/cross_entropy/cross_entropy.h"
#include "ops/dispatch.h"

namespace gradring {

using CrossEntropyKernel = Kernel<CrossEntropyArguments>;

GRADRING_DECLARE_KERNELS(CrossEntropyKernel, cross_entropy_kernel)

}  // namespace gradring

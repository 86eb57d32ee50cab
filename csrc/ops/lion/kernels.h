// The entry points that lion_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/lion/lion.h"

namespace gradring {

using LionKernel = Kernel<LionArguments>;
GRADRING_DECLARE_KERNELS(LionKernel, lion_kernel)

}  // namespace gradring

// The entry points that adam_cpu.cc defines once per ISA level.
#pragma once

#include "ops/adam/adam.h"
#include "ops/dispatch.h"

namespace gradring {

using AdamKernel = Kernel<AdamArguments>;

GRADRING_DECLARE_KERNELS(AdamKernel, adam_kernel)

}  // namespace gradring

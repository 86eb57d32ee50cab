// The entry points that sgd_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/sgd/sgd.h"

namespace gradring {

using SgdKernel = Kernel<SgdArguments>;

GRADRING_DECLARE_KERNELS(SgdKernel, sgd_kernel)

}  // namespace gradring

// The entry points that dropout_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/dropout/dropout.h"

namespace gradring {

using DropoutKernel = Kernel<DropoutArguments>;

GRADRING_DECLARE_KERNELS(DropoutKernel, dropout_kernel)

}  // namespace gradring

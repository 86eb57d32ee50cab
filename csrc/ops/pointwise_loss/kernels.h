// The entry points that pointwise_loss_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/pointwise_loss/pointwise_loss.h"

namespace gradring {

using PointwiseLossKernel = Kernel<PointwiseLossArguments>;

GRADRING_DECLARE_KERNELS(PointwiseLossKernel, pointwise_loss_kernel)

}  // namespace gradring

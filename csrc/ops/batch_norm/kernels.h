// The entry points that batch_norm_cpu.cc defines once per ISA level.
#pragma once

#include "ops/batch_norm/batch_norm.h"
#include "ops/dispatch.h"

namespace gradring {

using BatchNormKernel = Kernel<BatchNormArguments>;
using BatchNormVjpKernel = Kernel<BatchNormVjpArguments>;
using BatchNormUpdateKernel = Kernel<BatchNormUpdateArguments>;

GRADRING_DECLARE_KERNELS(BatchNormKernel, batch_norm_kernel)
GRADRING_DECLARE_KERNELS(BatchNormVjpKernel, batch_norm_vjp_kernel)
GRADRING_DECLARE_KERNELS(BatchNormUpdateKernel, batch_norm_update_kernel)

}  // namespace gradring

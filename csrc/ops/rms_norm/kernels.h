// The entry points that rms_norm_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/rms_norm/rms_norm.h"

namespace gradring {

using RmsNormKernel = Kernel<RmsNormArguments>;
using RmsNormVjpKernel = Kernel<RmsNormVjpArguments>;

GRADRING_DECLARE_KERNELS(RmsNormKernel, rms_norm_kernel)
GRADRING_DECLARE_KERNELS(RmsNormVjpKernel, rms_norm_vjp_kernel)

}  // namespace gradring

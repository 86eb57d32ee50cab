// The entry points that activation_cpu.cc defines once per ISA level.
#pragma once

#include "ops/activation/activation.h"
#include "ops/dispatch.h"

namespace gradring {

using ActivationKernel = Kernel<ActivationArguments>;
using ActivationVjpKernel = Kernel<ActivationVjpArguments>;

GRADRING_DECLARE_KERNELS(ActivationKernel, activation_kernel)
GRADRING_DECLARE_KERNELS(ActivationVjpKernel, activation_vjp_kernel)

}  // namespace gradring

// The entry points that softmax_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/softmax/softmax.h"

namespace gradring {

using SoftmaxKernel = Kernel<SoftmaxArguments>;
using SoftmaxVjpKernel = Kernel<SoftmaxVjpArguments>;

GRADRING_DECLARE_KERNELS(SoftmaxKernel, softmax_kernel)
GRADRING_DECLARE_KERNELS(SoftmaxVjpKernel, softmax_vjp_kernel)

}  // namespace gradring

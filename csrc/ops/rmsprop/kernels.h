// The entry points that rmsprop_cpu.cc defines once per ISA level, but not for AVX-512.
#pragma once

#include "ops/dispatch.h"
#include "ops/rmsprop/rmsprop.h"

namespace gradring {

using RmspropKernel = Kernel<RmspropArguments>;
GRADRING_DECLARE_NARROW_KERNELS(RmspropKernel, rmsprop_kernel)

}  // namespace gradring

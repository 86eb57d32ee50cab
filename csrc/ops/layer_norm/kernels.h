// The entry points that layer_norm_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/layer_norm/layer_norm.h"

namespace gradring {

using LayerNormKernel = Kernel<LayerNormArguments>;
using LayerNormVjpKernel = Kernel<LayerNormVjpArguments>;

GRADRING_DECLARE_KERNELS(LayerNormKernel, layer_norm_kernel)
GRADRING_DECLARE_KERNELS(LayerNormVjpKernel, layer_norm_vjp_kernel)

}  // namespace gradring

// The entry points that adam_cpu.cc defines once per ISA level, but not for AVX-512.
#pragma once

#include "ops/adam/adam.h"
#include "ops/dispatch.h"

namespace gradring {

using AdamKernel = Kernel<AdamArguments>;

struct AdamTileKernel {
  TileUpdate<float> f32;
  TileUpdate<double> f64;
};

GRADRING_DECLARE_NARROW_KERNELS(AdamKernel, adam_kernel)
GRADRING_DECLARE_NARROW_KERNELS(AdamTileKernel, adam_tile_kernel)

}  // namespace gradring

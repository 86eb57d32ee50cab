// The entry points that sgd_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/sgd/sgd.h"

namespace gradring {

using SgdKernel = Kernel<SgdArguments>;
struct SgdTileKernel {
  TileUpdate<float> f32;
  TileUpdate<double> f64;
};
// Pointers to a TileTable<T> (matmul/tile.h), a type that differs between ISA levels.
struct SgdUpdatingTiles {
  const void* f32;
  const void* f64;
};

GRADRING_DECLARE_KERNELS(SgdKernel, sgd_kernel)
GRADRING_DECLARE_KERNELS(SgdTileKernel, sgd_tile_kernel)
GRADRING_DECLARE_KERNELS(SgdUpdatingTiles, sgd_tile_tables)

}  // namespace gradring

// The entry points that sgd_cpu.cc defines once per ISA level, but not for AVX-512.
#pragma once

#include "ops/dispatch.h"
#include "ops/sgd/sgd.h"

namespace gradring {

using SgdKernel = Kernel<SgdArguments>;
struct SgdTileKernel {
  TileUpdate<float> f32;
  TileUpdate<double> f64;
};
// A pointer to a TileTable<float> (matmul/tile.h), a type that differs between ISA levels, or null where there is none. Tiles of
// float64 are updated by SgdTileKernel: a table for them would be as large as the one of float32, and few models need it.
struct SgdUpdatingTiles {
  const void* f32;
};

GRADRING_DECLARE_NARROW_KERNELS(SgdKernel, sgd_kernel)
GRADRING_DECLARE_NARROW_KERNELS(SgdTileKernel, sgd_tile_kernel)
GRADRING_DECLARE_KERNELS(SgdUpdatingTiles, sgd_tile_tables)

}  // namespace gradring

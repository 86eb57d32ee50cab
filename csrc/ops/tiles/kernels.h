// The tables that tiles_emulated_cpu.cc and pieces_cpu.cc fill once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/tiles/tiles.h"

namespace gradring {

GRADRING_DECLARE_KERNELS(TileFunctions, emulated_tile_functions)
GRADRING_DECLARE_KERNELS(MatmulKernels<float>, pieces_kernels)  // products for which `by_pieces` is true use these

}  // namespace gradring

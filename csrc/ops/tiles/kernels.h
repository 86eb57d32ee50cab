// The table that tiles_emulated_cpu.cc fills once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/tiles/tiles.h"

namespace gradring {

GRADRING_DECLARE_KERNELS(TileFunctions, emulated_tile_functions)

}  // namespace gradring

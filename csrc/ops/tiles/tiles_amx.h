// The functions on Intel AMX, which tiles_amx.cc defines for x86-64. Call them only if tile_unit() is kPermitted.
#pragma once

#include "ops/tiles/tiles.h"

#if defined(__x86_64__) && !defined(GRADRING_ONE_ISA)
#define GRADRING_HAS_AMX
#endif

namespace gradring {

#ifdef GRADRING_HAS_AMX
extern const TileFunctions amx_tiles;
#endif

}  // namespace gradring

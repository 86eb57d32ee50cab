// The functions that use vdpbf16ps (AVX512_BF16), which tiles_dot.cc defines for x86-64. Call them only if has_avx512_bf16().
#pragma once

#include "ops/tiles/tiles.h"

#if defined(__x86_64__) && !defined(GRADRING_ONE_ISA)
#define GRADRING_HAS_DOT
#endif

namespace gradring {

#ifdef GRADRING_HAS_DOT
extern const TileFunctions avx512_bf16_tiles;
#endif

}  // namespace gradring

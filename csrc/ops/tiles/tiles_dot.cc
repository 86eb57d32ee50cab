#include "ops/tiles/tiles_dot.h"

#ifdef GRADRING_HAS_DOT

#include "ops/simd/simd_bf16_dot.h"

namespace gradring {

namespace {

void configure(int) noexcept {}
void release() noexcept {}

// Products of pieces do not use this table, because six products at twice the rate take longer than one multiply-add. Should one come
// here, the emulation computes what tiles.h says.
template <int kPieces>
void multiply_pieces(const TileBlockWork& work) noexcept {
  emulated_tiles().multiply[kPieces - 1](work);
}

}  // namespace

const TileFunctions avx512_bf16_tiles = {
    "avx512_bf16", configure, release, {dot::multiply, multiply_pieces<2>, multiply_pieces<3>}};

}  // namespace gradring

#endif

// The entry points that bf16_matmul_cpu.cc defines once per ISA level.
#pragma once

#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/dispatch.h"
#include "ops/tiles/tiles.h"

namespace gradring {

// Whether both operands are small enough that each lane may convert them to float32 as a whole, and the float32 product's kernel for
// the shape multiplies them. Only large operands are converted while they are packed. Kernels of each instruction set call it, so the
// compiler must not make one function of it that all share.
[[gnu::always_inline]] constexpr bool is_small(const Bf16MatmulArguments& g) noexcept {
  const int64_t elements = (g.m + g.n) * g.k;
  return elements <= 1 << 16 || ((g.m <= 16 || g.n <= 16) && elements <= 5 << 16);
}

// Whether products of tiles pay for the shape. Packing makes k a multiple of 32, and columns one of 16, so small and narrow products
// fill the tiles too little. The float32 product reads a transposed A with few columns of B as it is, at its full rate.
[[gnu::always_inline]] constexpr bool fills_tiles(const Bf16MatmulArguments& g) noexcept {
  if (!is_small(g)) return g.m >= 8 || g.k >= 24;
  if (g.k < 24 && g.m * g.n < 1 << 14) return false;  // a large C takes longer to round and write than A and B to pack
  if (g.m < 32 && g.m * g.n < 128) return false;
  const bool as_it_is = g.trans_a && g.n <= 10;
  return g.m * g.n * g.k >= (as_it_is ? 1 << 17 : g.m >= 8 ? 1 << 13 : 1 << 16);
}

struct Bf16MatmulKernels {
  // `tiles`: the functions that multiply tiles, or null where fills_tiles() is false and for multiply-adds of converted numbers.
  void (*run)(const Lane&, const Bf16MatmulArguments&, const TileFunctions* tiles) noexcept;
  ScratchBytes (*scratch)(const Bf16MatmulArguments&, bool tiles) noexcept;
  // The sizes at which a product is cut, for tests a little below and above them.
  int64_t tile_rows, tile_columns, block_rows, steps;
};

GRADRING_DECLARE_KERNELS(Bf16MatmulKernels, bf16_matmul_kernels)

}  // namespace gradring

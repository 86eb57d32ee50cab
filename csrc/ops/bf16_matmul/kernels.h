// The entry points that bf16_matmul_cpu.cc defines once per ISA level.
#pragma once

#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/dispatch.h"
#include "ops/tiles/tiles.h"

namespace gradring {

struct Bf16MatmulKernels {
  // `tiles`: the functions that multiply tiles; null: multiply-adds of converted numbers.
  void (*run)(const Lane&, const Bf16MatmulArguments&, const TileFunctions* tiles) noexcept;
  ScratchBytes (*scratch)(const Bf16MatmulArguments&, bool tiles) noexcept;
  // The sizes at which a product is cut, for tests a little below and above them.
  int64_t tile_rows, tile_columns, block_rows, steps;
};

GRADRING_DECLARE_KERNELS(Bf16MatmulKernels, bf16_matmul_kernels)

}  // namespace gradring

// The table of matmul entry points, one per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/matmul/matmul.h"

namespace gradring {

// The sizes at which a product is cut, for tests that go a little below and beyond.
struct MatmulBlocks {
  int64_t tile_rows, tile_columns;
  int64_t rows, columns, steps;  // of a block; rows: where all steps are in one
};

struct MatmulKernels {
  void (*run_f32)(const Lane&, const MatmulArguments<float>&) noexcept;
  void (*run_f64)(const Lane&, const MatmulArguments<double>&) noexcept;
  ScratchBytes (*scratch_f32)(const MatmulArguments<float>&, int lanes) noexcept;
  ScratchBytes (*scratch_f64)(const MatmulArguments<double>&, int lanes) noexcept;
  int (*lanes_f32)(const MatmulArguments<float>&, int lanes) noexcept;
  int (*lanes_f64)(const MatmulArguments<double>&, int lanes) noexcept;
  MatmulBlocks blocks_f32, blocks_f64;
};

GRADRING_DECLARE_KERNELS(MatmulKernels, matmul_kernels)

}  // namespace gradring

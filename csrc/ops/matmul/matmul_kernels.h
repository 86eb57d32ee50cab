// The tables of matmul entry points: one per element type and ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/matmul/matmul.h"

namespace gradring {

// The sizes at which a product is cut, for tests a little below and above them.
struct MatmulBlocks {
  int64_t tile_rows, tile_columns;
  int64_t rows, columns, steps;  // the size of a block; `rows` holds if all steps are in one
};

template <class T>
struct MatmulKernels {
  void (*run)(const Lane&, const MatmulArguments<T>&) noexcept;
  ScratchBytes (*scratch)(const MatmulArguments<T>&, int lanes) noexcept;
  int (*lanes)(const MatmulArguments<T>&, int lanes) noexcept;
  MatmulBlocks (*blocks)() noexcept;
};

GRADRING_DECLARE_KERNELS(MatmulKernels<float>, matmul_kernels_f32)
GRADRING_DECLARE_KERNELS(MatmulKernels<double>, matmul_kernels_f64)

}  // namespace gradring

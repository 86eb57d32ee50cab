// The table of matmul entry points, one per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/matmul/matmul.h"

namespace gradring {

struct MatmulKernels {
  void (*run_f32)(const Lane&, const MatmulArguments<float>&) noexcept;
  void (*run_f64)(const Lane&, const MatmulArguments<double>&) noexcept;
  ScratchBytes (*scratch_f32)(const MatmulArguments<float>&, int lanes) noexcept;
  ScratchBytes (*scratch_f64)(const MatmulArguments<double>&, int lanes) noexcept;
  int (*lanes_f32)(const MatmulArguments<float>&, int lanes) noexcept;
  int (*lanes_f64)(const MatmulArguments<double>&, int lanes) noexcept;
};

GRADRING_DECLARE_KERNELS(MatmulKernels, matmul_kernels)

}  // namespace gradring

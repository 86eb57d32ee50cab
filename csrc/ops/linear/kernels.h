// The entry point that linear_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/linear/linear.h"

namespace gradring {

// Writes g = dy activation'(saved) to `gradient` (rows x out, contiguous; null without an activation), and db.
template <class T>
struct LinearGradientArguments {
  LinearVjpArguments<T> vjp;
  T* gradient = nullptr;
};

using LinearGradientKernel = Kernel<LinearGradientArguments>;

GRADRING_DECLARE_KERNELS(LinearGradientKernel, linear_gradient_kernel)

}  // namespace gradring

// The entry point that half_linear_cpu.cc defines once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/linear/half_linear.h"

namespace gradring {

// Writes g to `gradient` (rows x out, contiguous; null without an activation), and db.
using HalfGradientKernel = void (*)(const Lane& lane, const HalfLinearVjpArguments& arguments,
                                    Bfloat* gradient) noexcept;

GRADRING_DECLARE_KERNELS(HalfGradientKernel, half_gradient_kernel)

}  // namespace gradring

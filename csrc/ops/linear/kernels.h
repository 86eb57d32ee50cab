// The table that linear_cpu.cc fills once per ISA level.
#pragma once

#include "ops/dispatch.h"
#include "ops/linear/linear.h"

namespace gradring {

template <class T>
struct LinearTable {
  // g = dy activation'(saved) into `gradient` (rows x out, contiguous; may be null without an activation), and db.
  void (*gradient)(const Lane&, const LinearVjpArguments<T>&, T* gradient) noexcept;
};

using LinearKernels = ByType<LinearTable>;

GRADRING_DECLARE_KERNELS(LinearKernels, linear_kernels)

}  // namespace gradring

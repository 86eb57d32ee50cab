// The entry points that column_sums_cpu.cc defines once per ISA level.
#pragma once

#include "ops/column_sums/column_sums.h"
#include "ops/dispatch.h"

namespace gradring {

using ColumnSumsKernel = Kernel<ColumnSumsArguments>;

GRADRING_DECLARE_KERNELS(ColumnSumsKernel, column_sums_kernel)

}  // namespace gradring

// The table that combine_cpu.cc fills once per ISA level.
#pragma once

#include "ops/combine/combine.h"
#include "ops/dispatch.h"

namespace gradring {

struct CombineKernels {
  Combine of[kElements][kReductions];
};

GRADRING_DECLARE_KERNELS(CombineKernels, combine_kernels)

}  // namespace gradring

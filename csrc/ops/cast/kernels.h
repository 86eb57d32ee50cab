// The table that cast_cpu.cc fills once per ISA level.
#pragma once

#include "ops/cast/cast.h"

namespace gradring {

struct CastKernels {
  Cast to_float32[kDtypes];
  Cast to_float64[kDtypes];
  Cast to_int64[kDtypes];
  Cast float32_to_float16;
  Cast float32_to_bfloat16;
};

}  // namespace gradring

#include "ops/cast/cast.h"

#include "ops/cast/kernels.h"
#include "ops/dispatch.h"

namespace gradring {

GRADRING_DECLARE_KERNELS(CastKernels, cast_kernels)

Cast find_cast(Dtype to, Dtype from) noexcept {
  const CastKernels& kernels = GRADRING_KERNELS(cast_kernels);
  const int row = static_cast<int>(from);
  switch (to) {
    case Dtype::kFloat32: return kernels.to_float32[row];
    case Dtype::kFloat64: return kernels.to_float64[row];
    case Dtype::kInt64: return kernels.to_int64[row];
    case Dtype::kFloat16: return from == Dtype::kFloat32 ? kernels.float32_to_float16 : nullptr;
    case Dtype::kBfloat16: return from == Dtype::kFloat32 ? kernels.float32_to_bfloat16 : nullptr;
    default: return nullptr;
  }
}

}  // namespace gradring

#include "ops/rms_norm/rms_norm.h"

#include "ops/rms_norm/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(rms_norm, RmsNormArguments, rms_norm_kernel)
GRADRING_DEFINE_OP(rms_norm_vjp, RmsNormVjpArguments, rms_norm_vjp_kernel)

int rms_norm_lanes(int64_t rows, int64_t columns, int lanes) noexcept {
  return lanes_worth(static_cast<double>(rows) * (5 + 0.2 * static_cast<double>(columns)), lanes);
}

ScratchBytes rms_norm_vjp_scratch(int64_t rows, int64_t columns, size_t element) noexcept {
  return {0, static_cast<size_t>(row_blocks(rows)) * static_cast<size_t>(columns) * element};
}

}  // namespace gradring

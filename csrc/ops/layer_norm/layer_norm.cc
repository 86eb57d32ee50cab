#include "ops/layer_norm/layer_norm.h"

#include "ops/layer_norm/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(layer_norm, LayerNormArguments, layer_norm_kernel)
GRADRING_DEFINE_OP(layer_norm_vjp, LayerNormVjpArguments, layer_norm_vjp_kernel)

int layer_norm_lanes(int64_t rows, int64_t columns, int lanes) noexcept {
  return lanes_worth(static_cast<double>(rows) * (5 + 0.3 * static_cast<double>(columns)), lanes);
}

ScratchBytes layer_norm_vjp_scratch(int64_t rows, int64_t columns, size_t element, bool sums) noexcept {
  if (!sums) return {};
  return {0, 2 * static_cast<size_t>(row_blocks(rows)) * static_cast<size_t>(columns) * element};
}

}  // namespace gradring

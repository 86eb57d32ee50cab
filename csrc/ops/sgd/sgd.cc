#include "ops/sgd/sgd.h"

#include "ops/sgd/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(sgd_update, SgdArguments, sgd_kernel)

template <>
TileUpdate<float> sgd_tile_update() noexcept {
  return GRADRING_KERNELS(sgd_tile_kernel).f32;
}
template <>
TileUpdate<double> sgd_tile_update() noexcept {
  return GRADRING_KERNELS(sgd_tile_kernel).f64;
}

int sgd_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.3, lanes); }

}  // namespace gradring

#include "ops/adam/adam.h"

#include <cmath>

#include "ops/adam/kernels.h"

namespace gradring {

AdamFactors adam_factors(int64_t step, double lr, double beta1, double beta2) noexcept {
  const auto t = static_cast<double>(step);
  return {lr / (1 - std::pow(beta1, t)), 1 / std::sqrt(1 - std::pow(beta2, t))};
}

GRADRING_DEFINE_OP(adam_update, AdamArguments, adam_kernel)

template <>
TileUpdate<float> adam_tile_update() noexcept {
  return GRADRING_KERNELS(adam_tile_kernel).f32;
}
template <>
TileUpdate<double> adam_tile_update() noexcept {
  return GRADRING_KERNELS(adam_tile_kernel).f64;
}

int adam_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.6, lanes); }

}  // namespace gradring

#include "ops/sgd/sgd.h"

#include "ops/sgd/kernels.h"

namespace gradring {

GRADRING_DEFINE_CHOSEN_OP(sgd_update, SgdArguments, sgd_kernel, GRADRING_CHOOSE_NARROW)

template <>
TileUpdate<float> sgd_tile_update() noexcept {
  return GRADRING_CHOOSE_NARROW(sgd_tile_kernel).f32;
}
template <>
TileUpdate<double> sgd_tile_update() noexcept {
  return GRADRING_CHOOSE_NARROW(sgd_tile_kernel).f64;
}

namespace {

// Only plain momentum fits, because the sums occupy nearly all registers.
bool fits_registers(const SgdArguments<float>& g) noexcept {
  return g.momentum != 0 && !g.nesterov && g.weight_decay == 0 && g.grad_scale == 1;
}

}  // namespace

template <>
const void* sgd_updating_tiles(const SgdArguments<float>& g) noexcept {
  return fits_registers(g) ? GRADRING_KERNELS(sgd_tile_tables).f32 : nullptr;
}
template <>
const void* sgd_updating_tiles(const SgdArguments<double>&) noexcept {
  return nullptr;
}

int sgd_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.3, lanes); }

}  // namespace gradring

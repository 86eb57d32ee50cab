#include "ops/adam/adam.h"

#include <cmath>

#include "ops/adam/kernels.h"

namespace gradring {

AdamFactors adam_factors(int64_t step, double lr, double beta1, double beta2) noexcept {
  // A step of a network updates several arrays with the same factors, and a small one takes a few microseconds in all. Two powers
  // for each array would take a noticeable part of that.
  struct Known {
    int64_t step = 0;
    double beta1 = 0, beta2 = 0, rest = 1, root = 1;
  };
  static thread_local Known known;
  if (known.step != step || known.beta1 != beta1 || known.beta2 != beta2) {
    const auto t = static_cast<double>(step);
    known = {step, beta1, beta2, 1 - std::pow(beta1, t), 1 / std::sqrt(1 - std::pow(beta2, t))};
  }
  return {lr / known.rest, known.root};
}

GRADRING_DEFINE_CHOSEN_OP(adam_update, AdamArguments, adam_kernel, GRADRING_CHOOSE_NARROW)

template <>
TileUpdate<float> adam_tile_update() noexcept {
  return GRADRING_CHOOSE_NARROW(adam_tile_kernel).f32;
}
template <>
TileUpdate<double> adam_tile_update() noexcept {
  return GRADRING_CHOOSE_NARROW(adam_tile_kernel).f64;
}

int adam_lanes(int64_t n, int lanes) noexcept { return lanes_worth(static_cast<double>(n) * 0.6, lanes); }

}  // namespace gradring

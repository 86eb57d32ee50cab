#include "ops/activation/activation.h"

#include "ops/activation/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(activation_forward, ActivationArguments, activation_kernel)
GRADRING_DEFINE_OP(activation_vjp, ActivationVjpArguments, activation_vjp_kernel)

int activation_lanes(Activation activation, int64_t n, int lanes) noexcept {
  const bool cheap = activation == Activation::kNone || activation == Activation::kRelu;
  return lanes_worth(static_cast<double>(n) * (cheap ? 0.1 : 0.4), lanes);
}

}  // namespace gradring

#include "ops/activation/activation.h"

#include "ops/activation/kernels.h"

namespace gradring {

template <class T>
void activation_forward(const Lane& lane, const ActivationArguments<T>& arguments) noexcept {
  GRADRING_KERNELS(activation_kernels).of<T>().forward(lane, arguments);
}
template <class T>
void activation_vjp(const Lane& lane, const ActivationVjpArguments<T>& arguments) noexcept {
  GRADRING_KERNELS(activation_kernels).of<T>().vjp(lane, arguments);
}

int activation_lanes(Activation activation, int64_t n, int lanes) noexcept {
  const bool cheap = activation == Activation::kNone || activation == Activation::kRelu;
  return lanes_worth(static_cast<double>(n) * (cheap ? 0.1 : 0.4), lanes);
}

template void activation_forward(const Lane&, const ActivationArguments<float>&) noexcept;
template void activation_forward(const Lane&, const ActivationArguments<double>&) noexcept;
template void activation_vjp(const Lane&, const ActivationVjpArguments<float>&) noexcept;
template void activation_vjp(const Lane&, const ActivationVjpArguments<double>&) noexcept;

}  // namespace gradring

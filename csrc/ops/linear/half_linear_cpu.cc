#include "ops/bf16_matmul/deliver.h"
#include "ops/linear/half_kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Adds up some columns from the first row to the last, so that the order of every sum is fixed.
template <Activation A>
GRADRING_INLINE void columns(const HalfLinearVjpArguments& p, Bfloat* gradient, int64_t j, int64_t count) noexcept {
  Vec<float> sum{};
  for (int64_t i = 0; i < p.rows; ++i) {
    Vec<float> g = load_wide(p.dy + i * p.out + j, count, p.float16);
    if constexpr (A != Activation::kNone) {
      g = activate_backward<A, float>(g, get_part(p.saved, i * p.out + j, count, p.float16));
      store_narrow(gradient + i * p.out + j, g, count, p.float16);
    }
    sum += g;
  }
  if (!p.db) return;
  if (p.db.half) {
    store_narrow(static_cast<Bfloat*>(p.db.data) + j, sum, count, p.float16);
  } else {
    store_partial(static_cast<float*>(p.db.data) + j, sum, count);
  }
}

template <Activation A>
void gradient_with(const Lane& lane, const HalfLinearVjpArguments& p, Bfloat* gradient) noexcept {
  constexpr int64_t W = kWidth<float>;
  if (A == Activation::kNone && !p.db) return;
  const Range part = split(lane, p.out, 2 * W);
  for (int64_t j = part.begin; j < part.end; j += W) columns<A>(p, gradient, j, smaller(part.end - j, W));
}

void run(const Lane& lane, const HalfLinearVjpArguments& p, Bfloat* gradient) noexcept {
  switch (p.activation) {
    case Activation::kNone: return gradient_with<Activation::kNone>(lane, p, gradient);
    case Activation::kRelu: return gradient_with<Activation::kRelu>(lane, p, gradient);
    case Activation::kGelu: return gradient_with<Activation::kGelu>(lane, p, gradient);
    case Activation::kSilu: return gradient_with<Activation::kSilu>(lane, p, gradient);
    case Activation::kTanh: return gradient_with<Activation::kTanh>(lane, p, gradient);
    case Activation::kSigmoid: return gradient_with<Activation::kSigmoid>(lane, p, gradient);
    case Activation::kGeluErf: return;  // linear_vjp does not accept it
  }
}

}  // namespace

extern const HalfGradientKernel half_gradient_kernel;
const HalfGradientKernel half_gradient_kernel = run;

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#include "ops/math/reduce.h"
#include "ops/rmsprop/kernels.h"
#include "ops/simd/gradient.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <bool kCentered, bool kMomentum, class T>
void update(const RmspropArguments<T>& g, const GradientPart<T>& part) noexcept {
  const T alpha = static_cast<T>(g.alpha), rest = static_cast<T>(1 - g.alpha), eps = static_cast<T>(g.eps);
  const T scale = static_cast<T>(g.grad_scale), decay = static_cast<T>(g.weight_decay);
  const T momentum = static_cast<T>(g.momentum), lr = static_cast<T>(g.lr);
  T* const param = g.param;
  T* const second_moment = g.v;
  T* const first_moment = kCentered ? g.mean : g.v;
  T* const velocity = kMomentum ? g.velocity : g.v;
  for_gradient(
      part, [&](int64_t at, Vec<T> gradient, const auto& get, const auto& put) __attribute__((always_inline)) {
        const Vec<T> p = get(param + at);
        const Vec<T> d = gradient * scale + p * decay;
        const Vec<T> v = running_square<T>(get(second_moment + at), d, alpha, rest);
        put(second_moment + at, v);
        Vec<T> spread = v;
        if constexpr (kCentered) {
          const Vec<T> mean = get(first_moment + at) * alpha + d * rest;
          put(first_moment + at, mean);
          spread = v - mean * mean;
          const IntVec<T> below = spread < T(0);  // rounding can make it negative
          spread = below ? Vec<T>{} : spread;
        }
        Vec<T> step = d / (square_root<T>(spread) + eps);
        if constexpr (kMomentum) {
          step = get(velocity + at) * momentum + step;
          put(velocity + at, step);
        }
        put(param + at, p - step * lr);
      });
}

template <class T>
void run(const Lane& lane, const RmspropArguments<T>& g) noexcept {
  const GradientPart<T> part = lane_part(lane, g.n, g.grad);
  if (g.mean != nullptr)
    return g.velocity != nullptr ? update<true, true, T>(g, part) : update<true, false, T>(g, part);
  g.velocity != nullptr ? update<false, true, T>(g, part) : update<false, false, T>(g, part);
}

}  // namespace

extern const RmspropKernel rmsprop_kernel;
const RmspropKernel rmsprop_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#include "ops/dispatch.h"

#if GRADRING_VECTOR_BYTES < 64  // AVX-512 uses the kernels of AVX2: see GRADRING_DECLARE_NARROW_KERNELS

#include "ops/rmsprop/kernels.h"
#include "ops/rmsprop/update_vector.h"
#include "ops/simd/gradient.h"
#include "ops/simd/subnormals.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <bool kCentered, bool kMomentum, class T>
void update(const RmspropArguments<T>& g, const GradientPart<T>& part) noexcept {
  const RmspropFactors<T> f(g, g.lr, g.grad_scale);
  T* const param = g.param;
  T* const v = g.v;
  T* const mean = kCentered ? g.mean : g.v;
  T* const velocity = kMomentum ? g.velocity : g.v;
  for_gradient(
      part, [&](int64_t at, Vec<T> gradient, const auto& get, const auto& put) __attribute__((always_inline)) {
        rmsprop_vector<kCentered, kMomentum, T>(f, param + at, v + at, mean + at, velocity + at, gradient, get, put);
      });
}

template <class T>
void run(const Lane& lane, const RmspropArguments<T>& g) noexcept {
  const SubnormalsAsZeros zeros;
  const GradientPart<T> part = lane_part(lane, g.n, g.grad);
  if (g.mean != nullptr)
    return g.velocity != nullptr ? update<true, true, T>(g, part) : update<true, false, T>(g, part);
  g.velocity != nullptr ? update<false, true, T>(g, part) : update<false, false, T>(g, part);
}

}  // namespace

extern const RmspropKernel rmsprop_kernel;
const RmspropKernel rmsprop_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#endif

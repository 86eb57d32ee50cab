#include "ops/lion/kernels.h"
#include "ops/lion/update_vector.h"
#include "ops/simd/gradient.h"
#include "ops/simd/subnormals.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <class T>
void run(const Lane& lane, const LionArguments<T>& g) noexcept {
  const SubnormalsAsZeros zeros;
  const LionFactors<T> f(g, g.lr, g.grad_scale);
  T* const param = g.param;
  T* const m = g.m;
  for_gradient(
      lane_part(lane, g.n, g.grad), [&](int64_t at, Vec<T> gradient, const auto& get, const auto& put) __attribute__((
                                        always_inline)) { lion_vector<T>(f, param + at, m + at, gradient, get, put); });
}

}  // namespace

extern const LionKernel lion_kernel;
const LionKernel lion_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#include "ops/lion/kernels.h"
#include "ops/math/reduce.h"
#include "ops/simd/gradient.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

template <class T>
void run(const Lane& lane, const LionArguments<T>& g) noexcept {
  const T beta1 = static_cast<T>(g.beta1), rest1 = static_cast<T>(1 - g.beta1);
  const T beta2 = static_cast<T>(g.beta2), rest2 = static_cast<T>(1 - g.beta2);
  const T scale = static_cast<T>(g.grad_scale), shrink = static_cast<T>(1 - g.lr * g.weight_decay);
  const Vec<T> up = Vec<T>{} + static_cast<T>(g.lr), down = Vec<T>{} - static_cast<T>(g.lr);
  T* const param = g.param;
  T* const moment = g.m;
  for_gradient(
      lane_part(lane, g.n, g.grad), [&](int64_t at, Vec<T> gradient, const auto& get, const auto& put)
                                        __attribute__((always_inline)) {
                                          const Vec<T> d = gradient * scale, m = get(moment + at);
                                          const Vec<T> u = m * beta1 + d * rest1;
                                          const IntVec<T> above = u > T(0), below = u < T(0);
                                          const Vec<T> step = above ? up : (below ? down : u);
                                          put(moment + at, m * beta2 + d * rest2);
                                          put(param + at, get(param + at) * shrink - step);
                                        });
}

}  // namespace

extern const LionKernel lion_kernel;
const LionKernel lion_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// One vector of a parameter and of Lion's state: the same source for CPUs and GPUs.
#pragma once

#include "ops/lion/lion.h"
#include "ops/math/math.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
struct LionFactors {
  T beta1, rest1, beta2, rest2, scale, shrink, lr;

  // rate and grad_scale: those of `g` on the CPU, and the step record's on a device.
  GRADRING_INLINE LionFactors(const LionArguments<T>& g, double rate, double grad_scale) noexcept
      : beta1(static_cast<T>(g.beta1)),
        rest1(static_cast<T>(1 - g.beta1)),
        beta2(static_cast<T>(g.beta2)),
        rest2(static_cast<T>(1 - g.beta2)),
        scale(static_cast<T>(grad_scale)),
        shrink(static_cast<T>(1 - rate * g.weight_decay)),
        lr(static_cast<T>(rate)) {}
};

template <class T, class Load, class Store>
GRADRING_INLINE void lion_vector(const LionFactors<T>& f, T* param, T* moment, Vec<T> gradient, const Load& get,
                                 const Store& put) noexcept {
  const Vec<T> up = Vec<T>{} + f.lr, down = Vec<T>{} - f.lr;
  const Vec<T> d = gradient * f.scale, m = get(moment);
  const Vec<T> u = m * f.beta1 + d * f.rest1;
  const IntVec<T> above = u > T(0), below = u < T(0);
  const Vec<T> step = above ? up : (below ? down : u);
  put(moment, m * f.beta2 + d * f.rest2);
  put(param, get(param) * f.shrink - step);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

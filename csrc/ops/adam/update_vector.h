// One vector of a parameter and of Adam's state: the same source for CPUs and GPUs.
#pragma once

#include "ops/adam/adam.h"
#include "ops/simd/running_square.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
struct AdamVectorFactors {
  T beta1, rest1, beta2, rest2, step_size, root, eps, scale, decay;

  // lr and grad_scale: those of `g` on the CPU, and the step record's on a device.
  GRADRING_INLINE AdamVectorFactors(const AdamArguments<T>& g, const AdamFactors& factors, double lr,
                                    double grad_scale) noexcept
      : beta1(static_cast<T>(g.beta1)),
        rest1(static_cast<T>(1 - g.beta1)),
        beta2(static_cast<T>(g.beta2)),
        rest2(static_cast<T>(1 - g.beta2)),
        step_size(static_cast<T>(factors.step_size)),
        root(static_cast<T>(factors.root)),
        eps(static_cast<T>(g.eps)),
        scale(static_cast<T>(grad_scale)),
        decay(static_cast<T>(g.decoupled ? 1 - lr * g.weight_decay : g.weight_decay)) {}
};

// vmax is read and written with kAmsgrad alone.
template <bool kDecoupled, bool kAmsgrad, class T, class Load, class Store>
GRADRING_INLINE void adam_vector(const AdamVectorFactors<T>& f, T* param, T* first_moment, T* second_moment, T* vmax,
                                 Vec<T> gradient, const Load& get, const Store& put) noexcept {
  Vec<T> p = get(param);
  Vec<T> d = gradient * f.scale;
  if constexpr (kDecoupled) {
    p = p * f.decay;
  } else {
    d = d + p * f.decay;
  }
  const Vec<T> m = get(first_moment) * f.beta1 + d * f.rest1;
  const Vec<T> v = running_square<T>(get(second_moment), d, f.beta2, f.rest2);
  put(first_moment, m);
  put(second_moment, v);
  Vec<T> spread = v;
  if constexpr (kAmsgrad) {
    const Vec<T> before = get(vmax);
    const IntVec<T> keeps = (before > v) | (before != before);  // a NaN in either one stays
    spread = keeps ? before : v;
    put(vmax, spread);
  }
  put(param, p - m * f.step_size / (square_root<T>(spread) * f.root + f.eps));
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// One vector of a parameter and of RMSprop's state: the same source for CPUs and GPUs.
#pragma once

#include "ops/rmsprop/rmsprop.h"
#include "ops/simd/running_square.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
struct RmspropFactors {
  T alpha, rest, eps, momentum, decay, scale, lr;

  // rate and grad_scale: those of `g` on the CPU, and the step record's on a device.
  GRADRING_INLINE RmspropFactors(const RmspropArguments<T>& g, double rate, double grad_scale) noexcept
      : alpha(static_cast<T>(g.alpha)),
        rest(static_cast<T>(1 - g.alpha)),
        eps(static_cast<T>(g.eps)),
        momentum(static_cast<T>(g.momentum)),
        decay(static_cast<T>(g.weight_decay)),
        scale(static_cast<T>(grad_scale)),
        lr(static_cast<T>(rate)) {}
};

// `mean` is read and written with kCentered alone, and velocity with kMomentum.
template <bool kCentered, bool kMomentum, class T, class Load, class Store>
GRADRING_INLINE void rmsprop_vector(const RmspropFactors<T>& f, T* param, T* second_moment, T* mean, T* velocity,
                                    Vec<T> gradient, const Load& get, const Store& put) noexcept {
  const Vec<T> p = get(param);
  const Vec<T> d = gradient * f.scale + p * f.decay;
  const Vec<T> v = running_square<T>(get(second_moment), d, f.alpha, f.rest);
  put(second_moment, v);
  Vec<T> spread = v;
  if constexpr (kCentered) {
    const Vec<T> m = get(mean) * f.alpha + d * f.rest;
    put(mean, m);
    spread = v - m * m;
    const IntVec<T> below = spread < T(0);  // rounding can make it negative
    spread = below ? Vec<T>{} : spread;
  }
  Vec<T> step = d / (square_root<T>(spread) + f.eps);
  if constexpr (kMomentum) {
    step = get(velocity) * f.momentum + step;
    put(velocity, step);
  }
  put(param, p - step * f.lr);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

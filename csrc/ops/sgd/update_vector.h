// One vector of a parameter and its velocity, for kernels that are compiled once per ISA level.
#pragma once

#include "ops/sgd/sgd.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

enum class SgdKind { kPlain, kMomentum, kNesterov };

template <class T>
struct SgdFactors {
  T lr, momentum, decay, scale;

  explicit GRADRING_INLINE SgdFactors(const SgdArguments<T>& g) noexcept
      : lr(static_cast<T>(g.lr)),
        momentum(static_cast<T>(g.momentum)),
        decay(static_cast<T>(g.weight_decay)),
        scale(static_cast<T>(g.grad_scale)) {}
};

template <class T>
GRADRING_INLINE SgdKind sgd_kind(const SgdArguments<T>& g) noexcept {
  return g.momentum == 0 ? SgdKind::kPlain : g.nesterov ? SgdKind::kNesterov : SgdKind::kMomentum;
}

// Whether the gradient is used as it is, without a scale and without weight decay.
template <class T>
GRADRING_INLINE bool sgd_bare(const SgdArguments<T>& g) noexcept {
  return g.grad_scale == 1 && g.weight_decay == 0;
}

template <SgdKind K, bool kBare, class T, class Load, class Store>
GRADRING_INLINE void update_vector(const SgdFactors<T>& f, T* param, T* velocity, Vec<T> gradient, const Load& get,
                                   const Store& put) noexcept {
  const Vec<T> p = get(param);
  Vec<T> d = gradient;
  if constexpr (!kBare) d = d * f.scale + p * f.decay;
  if constexpr (K != SgdKind::kPlain) {
    const Vec<T> v = get(velocity) * f.momentum + d;
    put(velocity, v);
    d = K == SgdKind::kNesterov ? v * f.momentum + d : v;
  }
  put(param, p - d * f.lr);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// The formulas of the pointwise losses: one text for CPUs and GPUs.
#pragma once

#include "ops/math/math.h"
#include "ops/pointwise_loss/pointwise_loss.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
struct Point {
  Vec<T> loss;
  Vec<T> slope;
};

template <PointwiseLoss K, class T>
GRADRING_INLINE Point<T> point(Vec<T> p, Vec<T> t) noexcept {
  if constexpr (K == PointwiseLoss::kMse) {
    const Vec<T> difference = p - t;
    return {difference * difference, difference + difference};
  } else {
    const Vec<T> zero{};
    const Vec<T> e = math::exp<T>(-abs<T>(p));
    const Vec<T> large = T(1) / (e + T(1));  // sigmoid(|p|)
    const Vec<T> sigmoid = p < zero ? e * large : large;
    const Vec<T> usual = (maximum<T>(zero, p) - p * t) + math::log1p_unit<T>(e);
    // An infinite logit is either right, with a loss of 0, or wrong, with an infinite loss; the formula would give inf - inf.
    const Vec<T> endless = abs<T>(p), right = p < zero ? zero : zero + T(1);
    return {endless == Float<T>::kInfinity ? (t == right ? zero : endless) : usual, sigmoid - t};
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

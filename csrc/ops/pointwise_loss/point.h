// The formulas of the pointwise losses, as the same source for CPUs and GPUs.
#pragma once

#include "ops/math/math.h"
#include "ops/pointwise_loss/pointwise_loss.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
struct Point {
  Vec<T> loss;
  Vec<T> slope;
};

template <class T>
GRADRING_INLINE Point<T> binary_point(Vec<T> p, Vec<T> t) noexcept {
  const Vec<T> zero{};
  const Vec<T> e = math::exp<T>(-abs<T>(p));
  const Vec<T> large = T(1) / (e + T(1));  // sigmoid(|p|)
  const Vec<T> sigmoid = p < zero ? e * large : large;
  const Vec<T> usual = (maximum<T>(zero, p) - p * t) + math::log1p_unit<T>(e);
  // An infinite logit is either right, with a loss of 0, or wrong, with an infinite loss; the formula would give inf - inf.
  const Vec<T> endless = abs<T>(p), right = p < zero ? zero : zero + T(1);
  return {endless == Float<T>::kInfinity ? (t == right ? zero : endless) : usual, sigmoid - t};
}

template <class T>
GRADRING_INLINE Point<T> weighted_binary_point(Vec<T> p, Vec<T> t, Vec<T> pos_weight) noexcept {
  const Vec<T> zero{};
  const Vec<T> e = math::exp<T>(-abs<T>(p));
  const Vec<T> large = T(1) / (e + T(1)), small = e * large;  // sigmoid(|p|), sigmoid(-|p|)
  const Vec<T> log1p = math::log1p_unit<T>(e);
  const Vec<T> ones = pos_weight * t, zeros = T(1) - t;
  // A term with factor 0 is 0 even if its logarithm is infinite.
  const Vec<T> first = ones == zero ? zero : ones * (maximum<T>(zero, -p) + log1p);
  const Vec<T> second = zeros == zero ? zero : zeros * (maximum<T>(zero, p) + log1p);
  return {first + second, zeros * (p < zero ? small : large) - ones * (p < zero ? large : small)};
}

// huber_delta: of huber. pos_weight: of binary cross entropy, if it is `weighted`.
template <PointwiseLoss K, class T>
GRADRING_INLINE Point<T> point(Vec<T> p, Vec<T> t, T huber_delta, bool weighted, Vec<T> pos_weight) noexcept {
  const Vec<T> difference = p - t, zero{};
  if constexpr (K == PointwiseLoss::kMse) {
    return {difference * difference, difference + difference};
  } else if constexpr (K == PointwiseLoss::kMae) {
    const Vec<T> one = zero + T(1);
    return {abs<T>(difference), difference > zero ? one : difference < zero ? -one : difference};  // NaN stays NaN
  } else if constexpr (K == PointwiseLoss::kHuber) {
    const Vec<T> delta = broadcast<T>(huber_delta), size = abs<T>(difference);
    const Vec<T> linear = delta * (size - T(0.5) * delta);
    const Vec<T> clipped = difference > delta ? delta : difference < -delta ? -delta : difference;
    return {size <= delta ? T(0.5) * difference * difference : linear, clipped};
  } else {
    return weighted ? weighted_binary_point<T>(p, t, pos_weight) : binary_point<T>(p, t);
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// Activations on vector registers, for the element-wise kernels and for the hot tile of matmul's epilogue.
//
// gelu is the tanh form (Hendrycks and Gimpel, Gaussian Error Linear Units, arXiv:1606.08415), which GPU libraries fuse
// into their matrix products: torch's gelu(approximate="tanh"), JAX's default. It is computed as x sigmoid(2 u), u =
// sqrt(2/pi) (x + 0.044715 x^3), which is the same function without the cancellation in 1 + tanh u.
// kGeluErf is the exact form, x times the integral of the normal distribution up to x: torch's gelu(approximate="none").
#pragma once

#include "ops/activation/activation.h"
#include "ops/math/math.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
inline constexpr T kGeluLinear = static_cast<T>(1.5957691216057307);  // 2 sqrt(2/pi)
template <class T>
inline constexpr T kGeluCubic = static_cast<T>(0.07135481627260025);  // 2 sqrt(2/pi) 0.044715
template <class T>
inline constexpr T kGeluSlope = 3 * kGeluCubic<T>;

// Outside these bounds the sigmoid is exactly 0 or 1. Clamping to them gives the right limit for infinities, not Inf *
// 0.
template <class T>
inline constexpr T kGeluEdge = sizeof(T) == 4 ? T(12) : T(24);
template <class T>
inline constexpr T kSiluEdge = sizeof(T) == 4 ? T(100) : T(800);

template <Activation A, class T>
GRADRING_INLINE Vec<T> activate(Vec<T> x) noexcept {
  if constexpr (A == Activation::kRelu) {
    const Vec<T> zero{};
    return maximum<T>(zero, x);  // NaN stays NaN
  } else if constexpr (A == Activation::kGelu) {
    x = at_least<T>(x, -kGeluEdge<T>);
    return x * math::sigmoid<T>(x * (x * x * kGeluCubic<T> + kGeluLinear<T>));
  } else if constexpr (A == Activation::kGeluErf) {
    x = at_least<T>(x, -Float<T>::kNormalEdge);
    return x * math::normal<T>(x).below;
  } else if constexpr (A == Activation::kSilu) {
    x = at_least<T>(x, -kSiluEdge<T>);
    return x * math::sigmoid<T>(x);
  } else if constexpr (A == Activation::kTanh) {
    return math::tanh<T>(x);
  } else if constexpr (A == Activation::kSigmoid) {
    return math::sigmoid<T>(x);
  } else {
    return x;
  }
}

// dy times the activation's derivative. `source` is the activation's input if derivative_needs_input(A), else its output.
template <Activation A, class T>
GRADRING_INLINE Vec<T> activate_backward(Vec<T> dy, Vec<T> source) noexcept {
  if constexpr (A == Activation::kRelu) {
    const Vec<T> zero{};
    return source <= zero ? zero : dy;  // a selection, not a product, because Inf * 0 is NaN
  } else if constexpr (A == Activation::kGelu) {
    const Vec<T> x = at_most<T>(at_least<T>(source, -kGeluEdge<T>), kGeluEdge<T>);
    const Vec<T> square = x * x;
    const auto s = math::sigmoid_slope<T>(x * (square * kGeluCubic<T> + kGeluLinear<T>));
    const Vec<T> inner = x * (square * kGeluSlope<T> + kGeluLinear<T>);
    return dy * (s.slope * inner + s.value);
  } else if constexpr (A == Activation::kGeluErf) {
    const Vec<T> x = at_most<T>(at_least<T>(source, -Float<T>::kNormalEdge), Float<T>::kNormalEdge);
    const auto normal = math::normal<T>(x);
    return dy * (x * normal.density + normal.below);
  } else if constexpr (A == Activation::kSilu) {
    const Vec<T> x = at_most<T>(at_least<T>(source, -kSiluEdge<T>), kSiluEdge<T>);
    const auto s = math::sigmoid_slope<T>(x);
    return dy * (s.slope * x + s.value);
  } else if constexpr (A == Activation::kTanh) {
    return dy * (T(1) - source * source);
  } else if constexpr (A == Activation::kSigmoid) {
    return dy * (source * (T(1) - source));
  } else {
    return dy;
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

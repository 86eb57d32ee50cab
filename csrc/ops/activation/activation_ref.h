// The reference: scalar, in double, by the textbook formulas.
#pragma once

#include <cmath>

#include "ops/activation/activation.h"

namespace gradring::reference {

inline double activate(Activation kind, double x) {
  switch (kind) {
    case Activation::kRelu: return x < 0 ? 0 : x;
    case Activation::kGelu:  // x (1 + tanh u) / 2, without its cancellation
      return x / (1 + std::exp(-2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf: return x * (std::erfc(-x * 0.7071067811865476) / 2);
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kTanh: return std::tanh(x);
    case Activation::kSigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

// dy times the derivative. source: the activation's output for relu, tanh, sigmoid; its input for gelu (both forms), silu.
inline double activate_backward(Activation kind, double dy, double source) {
  const double x = source;
  switch (kind) {
    case Activation::kRelu: return x <= 0 ? 0 : dy;
    case Activation::kGelu: {
      const double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
      const double slope = 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
      return dy * (1 / (1 + std::exp(-2 * u)) + 0.5 * x * slope / (std::cosh(u) * std::cosh(u)));
    }
    case Activation::kGeluErf:
      return dy * (std::erfc(-x * 0.7071067811865476) / 2 + x * std::exp(-x * x / 2) * 0.3989422804014327);
    case Activation::kSilu: {
      const double g = 1 / (1 + std::exp(-x));
      return dy * (g * (1 + x * (1 - g)));
    }
    case Activation::kTanh: return dy * (1 - source * source);
    case Activation::kSigmoid: return dy * (source * (1 - source));
    default: return dy;
  }
}

}  // namespace gradring::reference

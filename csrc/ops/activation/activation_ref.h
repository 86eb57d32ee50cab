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
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kTanh: return std::tanh(x);
    case Activation::kSigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

// source: the activation's output for relu, tanh, sigmoid; its input for gelu, silu.
inline double derivative(Activation kind, double source) {
  const double x = source;
  switch (kind) {
    case Activation::kRelu: return x > 0 ? 1 : std::isnan(x) ? 1 : 0;
    case Activation::kGelu: {
      const double t = std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
    }
    case Activation::kSilu: {
      const double g = 1 / (1 + std::exp(-x));
      return g * (1 + x * (1 - g));
    }
    case Activation::kTanh: return 1 - source * source;
    case Activation::kSigmoid: return source * (1 - source);
    default: return 1;
  }
}

}  // namespace gradring::reference

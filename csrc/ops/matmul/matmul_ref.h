// The reference: scalar, in double, one element at a time.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/matmul/matmul.h"

namespace gradring::reference {

// gelu is the tanh form; activation_math.h says why.
inline double activate(Activation kind, double x) {
  switch (kind) {
    case Activation::kRelu: return x < 0 ? 0 : x;
    case Activation::kGelu:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kTanh: return std::tanh(x);
    case Activation::kSigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

// dy times the derivative. source: the activation's output for relu, tanh, sigmoid; its input for gelu, silu.
inline double activate_backward(Activation kind, double dy, double source) {
  switch (kind) {
    case Activation::kRelu: return source <= 0 ? 0 : dy;
    case Activation::kGelu: {
      const double root = std::sqrt(2 / std::acos(-1.0));
      const double t = std::tanh(root * (source + 0.044715 * source * source * source));
      return dy * (0.5 * (1 + t) + 0.5 * source * (1 - t * t) * root * (1 + 3 * 0.044715 * source * source));
    }
    case Activation::kSilu: {
      const double g = 1 / (1 + std::exp(-source));
      return dy * (g * (1 + source * (1 - g)));
    }
    case Activation::kTanh: return dy * (1 - source * source);
    case Activation::kSigmoid: return dy * (source * (1 - source));
    default: return dy;
  }
}

template <class T>
void matmul(const MatmulArguments<T>& g) {
  const MatmulEpilogue<T>& e = g.epilogue;
  if (e.column_sums)
    for (int64_t j = 0; j < g.n; ++j) e.column_sums[j] = 0;
  for (int64_t j = 0; j < g.n; ++j) {
    double column_sum = 0;
    for (int64_t i = 0; i < g.m; ++i) {
      double v = e.accumulate ? g.c[i * g.ldc + j] : 0;
      for (int64_t p = 0; p < g.k; ++p) {
        const double a = g.trans_a ? g.a[p * g.lda + i] : g.a[i * g.lda + p];
        const double b = g.trans_b ? g.b[j * g.ldb + p] : g.b[p * g.ldb + j];
        v += a * b;
      }
      if (e.bias) v += e.bias[j];
      if (e.pre) e.pre[i * g.ldc + j] = static_cast<T>(v);
      v = activate(e.activation, v);
      if (e.mask != Activation::kNone) v = activate_backward(e.mask, v, e.mask_source[i * e.mask_ld + j]);
      column_sum += v;
      g.c[i * g.ldc + j] = static_cast<T>(v);
    }
    if (e.column_sums) e.column_sums[j] = static_cast<T>(column_sum);
  }
}

}  // namespace gradring::reference

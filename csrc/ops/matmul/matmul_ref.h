// The reference: scalar, in double, one element at a time.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/matmul/matmul.h"

namespace gradring::reference {

inline double activate(Activation kind, double x) {
  switch (kind) {
    case Activation::kRelu: return x < 0 ? 0 : x;
    case Activation::kGelu: return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5)));
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kTanh: return std::tanh(x);
    case Activation::kSigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

// source: the activation's output for relu, tanh, sigmoid; its input for gelu, silu.
inline double derivative(Activation kind, double source) {
  switch (kind) {
    case Activation::kRelu: return source > 0 ? 1 : std::isnan(source) ? source : 0;
    case Activation::kGelu:
      return 0.5 * (1 + std::erf(source * std::sqrt(0.5))) +
             source * std::exp(-0.5 * source * source) / std::sqrt(2 * 3.14159265358979323846);
    case Activation::kSilu: {
      const double g = 1 / (1 + std::exp(-source));
      return g * (1 + source * (1 - g));
    }
    case Activation::kTanh: return 1 - source * source;
    case Activation::kSigmoid: return source * (1 - source);
    default: return 1;
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
      if (e.mask != Activation::kNone) v *= derivative(e.mask, e.mask_source[i * e.mask_ld + j]);
      column_sum += v;
      g.c[i * g.ldc + j] = static_cast<T>(v);
    }
    if (e.column_sums) e.column_sums[j] = static_cast<T>(column_sum);
  }
}

}  // namespace gradring::reference

// The reference: scalar, in double, one element at a time.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/activation/activation_ref.h"
#include "ops/matmul/matmul.h"

namespace gradring::reference {

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

// The reference: plain sums in double.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/activation/activation_ref.h"
#include "ops/matmul/matmul.h"
#include "ops/product_ref.h"

namespace gradring::reference {

template <class T>
void matmul(const MatmulArguments<T>& g) {
  const MatmulEpilogue<T>& e = g.epilogue;
  std::vector<double> sums(static_cast<size_t>(g.m * g.n));
  for (int64_t i = 0; e.accumulate && i < g.m; ++i)
    for (int64_t j = 0; j < g.n; ++j) sums[static_cast<size_t>(i * g.n + j)] = static_cast<double>(g.c[i * g.ldc + j]);
  add_product(sums, matrix(g.a, g.m, g.k, g.lda, g.trans_a), matrix(g.b, g.k, g.n, g.ldb, g.trans_b), g.m, g.n, g.k);
  for (int64_t j = 0; j < g.n; ++j) {
    double column_sum = 0;
    for (int64_t i = 0; i < g.m; ++i) {
      double v = sums[static_cast<size_t>(i * g.n + j)];
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

// The reference: plain sums in double; each result is rounded once.
#pragma once

#include <cstdint>

#include "ops/activation/activation_ref.h"
#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/product_ref.h"

namespace gradring::reference {

inline double element_of(const HalfOrFloat& array, int64_t i) {
  return array.half ? static_cast<double>(bfloat_to_float(static_cast<const Bfloat*>(array.data)[i]))
                    : static_cast<double>(static_cast<const float*>(array.data)[i]);
}

inline void set_element(const HalfOrFloat& array, int64_t i, double value) {
  if (array.half) {
    static_cast<Bfloat*>(array.data)[i] = bfloat_from(value);
  } else {
    static_cast<float*>(array.data)[i] = static_cast<float>(value);
  }
}

inline void bf16_matmul(const Bf16MatmulArguments& g) {
  std::vector<double> sums(static_cast<size_t>(g.m * g.n));
  add_product(sums, matrix(g.a, g.m, g.k, g.lda, g.trans_a), matrix(g.b, g.k, g.n, g.ldb, g.trans_b), g.m, g.n, g.k);
  for (int64_t j = 0; j < g.n; ++j) {
    double column_sum = 0;
    for (int64_t i = 0; i < g.m; ++i) {
      double v = sums[static_cast<size_t>(i * g.n + j)];
      if (g.bias) v += element_of(g.bias, j);
      if (g.pre) set_element(g.pre, i * g.ldc + j, v);
      v = activate(g.activation, v);
      if (g.mask != Activation::kNone) v = activate_backward(g.mask, v, element_of(g.mask_source, i * g.mask_ld + j));
      column_sum += v;
      set_element(g.c, i * g.ldc + j, v);
    }
    if (g.column_sums) set_element(g.column_sums, j, column_sum);
  }
}

}  // namespace gradring::reference

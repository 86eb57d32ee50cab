// The reference: plain sums in double; each result is rounded once.
#pragma once

#include <cstdint>

#include "ops/activation/activation_ref.h"
#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/cast/half.h"
#include "ops/product_ref.h"

namespace gradring::reference {

// A number of 16 bits: float16 or bfloat16.
inline double from_narrow(Bfloat x, bool float16) {
  return static_cast<double>(float16 ? half_to_float(Half{x.bits}) : bfloat_to_float(x));
}
inline Bfloat to_narrow(double x, bool float16) { return float16 ? Bfloat{half_from(x).bits} : bfloat_from(x); }

inline double element_of(const HalfOrFloat& array, int64_t i, bool float16) {
  return array.half ? from_narrow(static_cast<const Bfloat*>(array.data)[i], float16)
                    : static_cast<double>(static_cast<const float*>(array.data)[i]);
}

inline void set_element(const HalfOrFloat& array, int64_t i, double value, bool float16) {
  if (array.half) {
    static_cast<Bfloat*>(array.data)[i] = to_narrow(value, float16);
  } else {
    static_cast<float*>(array.data)[i] = static_cast<float>(value);
  }
}

// As `matrix`, for numbers of 16 bits.
inline std::vector<double> narrow_matrix(const Bfloat* from, int64_t rows, int64_t columns, int64_t ld, bool transposed,
                                         bool float16) {
  std::vector<double> made;
  made.reserve(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      made.push_back(from_narrow(transposed ? from[j * ld + i] : from[i * ld + j], float16));
  return made;
}

inline void bf16_matmul(const Bf16MatmulArguments& g) {
  std::vector<double> sums(static_cast<size_t>(g.m * g.n));
  add_product(sums, narrow_matrix(g.a, g.m, g.k, g.lda, g.trans_a, g.float16),
              narrow_matrix(g.b, g.k, g.n, g.ldb, g.trans_b, g.float16), g.m, g.n, g.k);
  for (int64_t j = 0; j < g.n; ++j) {
    double column_sum = 0;
    for (int64_t i = 0; i < g.m; ++i) {
      double v = sums[static_cast<size_t>(i * g.n + j)];
      if (g.bias) v += element_of(g.bias, j, g.float16);
      if (g.pre) set_element(g.pre, i * g.ldc + j, v, g.float16);
      v = activate(g.activation, v);
      if (g.mask != Activation::kNone)
        v = activate_backward(g.mask, v, element_of(g.mask_source, i * g.mask_ld + j, g.float16));
      column_sum += v;
      set_element(g.c, i * g.ldc + j, v, g.float16);
    }
    if (g.column_sums) set_element(g.column_sums, j, column_sum, g.float16);
  }
}

}  // namespace gradring::reference

// From the tensors of a call to the arguments of bf16_matmul, for the files that register ops.
#pragma once

#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/matmul/matmul.h"
#include "ops/matrix_view.h"
#include "ops/op.h"

namespace gradring {

inline HalfOrFloat half_or_float(const Tensor& tensor) noexcept { return {tensor.data, is_narrow(tensor.dtype)}; }

// The same product without the arrays of the results and of the epilogue, which may be of either dtype. `dtype` is that of a
// and b, whose elements are Bfloat here whether they are bfloat16 or float16.
inline Bf16MatmulArguments product_of(const MatmulArguments<Bfloat>& from, Dtype dtype) noexcept {
  Bf16MatmulArguments g;
  g.float16 = dtype == Dtype::kFloat16;
  g.m = from.m, g.n = from.n, g.k = from.k;
  g.a = from.a, g.lda = from.lda, g.trans_a = from.trans_a;
  g.b = from.b, g.ldb = from.ldb, g.trans_b = from.trans_b;
  g.ldc = from.ldc;
  return g;
}

// A product's work, for OpSchema::work. In a program, lane 0 alone computes products of up to `alone` multiplications.
inline void half_product_work(const Bf16MatmulArguments& g, int lanes, double alone, OpWork* work) {
  work->lanes = bf16_matmul_lanes(g, lanes);
  work->scratch = bf16_matmul_scratch(g, work->awake ? lanes : work->lanes);
  work->operations = product_operations(g.m, g.n, g.k + 16);
  if (alone > 0) work->alone = static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) <= alone;
}

}  // namespace gradring

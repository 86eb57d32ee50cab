// The product x' dy, the gradient by a linear layer's weight: what linear_dw and its fusions with optimizers compute.
#pragma once

#include "ops/matmul/matmul.h"
#include "ops/matrix_view.h"
#include "ops/op.h"

namespace gradring {

template <class T>
MatmulArguments<T> weight_product(const Tensor& x, const Tensor& dy, const Tensor& dw, Products products) noexcept {
  MatmulArguments<T> g;
  g.m = x.columns(), g.n = dy.columns(), g.k = x.rows();
  g.a = x.as<const T>(), g.lda = g.m, g.trans_a = true;
  g.b = dy.as<const T>(), g.ldb = g.n;
  g.c = dw.as<T>(), g.ldc = g.n;
  g.products = products;
  g.cut = Cut::kRows;  // lanes divide the rows of the parameter among them
  return g;
}

// A product's work, for OpSchema::work. In a program, lane 0 alone computes products of up to `alone` multiplications.
template <class T>
void product_work(const MatmulArguments<T>& g, int lanes, double alone, OpWork* work) {
  work->lanes = matmul_lanes(g, lanes);
  work->scratch = matmul_scratch(g, work->awake ? lanes : work->lanes);
  work->operations = product_operations(g.m, g.n, g.k + 16);
  work->alone = static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k) <= alone;
}

// Checks that all axes of x and dy before the last are equal.
inline void check_same_rows(const OpCall& call, int x, int dy) {
  bool same = call[x].rank == call[dy].rank;
  for (int axis = 0; same && axis + 1 < call[x].rank; ++axis) same = call[x].shape[axis] == call[dy].shape[axis];
  if (!same) refuse_shapes(call, x, dy, "must be the same but for the last axis");
}

}  // namespace gradring

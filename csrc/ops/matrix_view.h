// A tensor in the form that matrix products read: row-major with a leading dimension, or the transpose of that in memory.
#pragma once

#include "ops/op.h"

namespace gradring {

struct MatrixView {
  int64_t rows = 0, columns = 0;  // the shape of the matrix for the op
  int64_t leading = 0;            // elements between the rows as they lie in memory
  bool transposed = false;        // memory holds columns x rows
};

// The view of a tensor of Layout::kMatrix or kRows. If it has not exactly two dimensions, all axes before the last are its rows.
inline MatrixView matrix_view(const Tensor& tensor) noexcept {
  if (tensor.rank != 2) return {tensor.rows(), tensor.columns(), tensor.columns(), false};
  const auto item = static_cast<int64_t>(size_of(tensor.dtype));
  const int64_t rows = tensor.shape[0], columns = tensor.shape[1];
  const int64_t down = tensor.strides[0], right = tensor.strides[1];
  if (right == item || columns <= 1) return {rows, columns, rows <= 1 ? columns : down / item, false};
  return {rows, columns, right / item, true};
}

inline MatrixView transposed(const MatrixView& view) noexcept {
  return {view.columns, view.rows, view.leading, !view.transposed};
}

// How many multiplications and additions a product of m x k by k x n takes.
inline double product_operations(int64_t m, int64_t n, int64_t k) noexcept {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

}  // namespace gradring

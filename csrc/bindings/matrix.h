// Matrices as matmul reads them: row-major with a leading dimension, or the transpose of that.
#pragma once

#include "bindings/array.h"

namespace gradring {

// A 2-D operand of any strides: read in place where its rows or its columns are contiguous, else copied.
struct Matrix {
  Array array;
  int64_t rows = 0, columns = 0;  // as the caller sees it
  int64_t leading = 0;            // elements between the rows as they lie in memory
  bool transposed = false;        // memory holds columns x rows
  template <class T>
  const T* data() const noexcept {
    return array.data<const T>();
  }
};

inline Matrix as_matrix(Array array) {
  Matrix matrix;
  const int64_t item = array.item_bytes();
  for (;;) {
    const int64_t rows = array.size(0), columns = array.size(1);
    const int64_t down = array.stride(0), right = array.stride(1);
    matrix.rows = rows;
    matrix.columns = columns;
    if (right == item || columns <= 1) {
      matrix.transposed = false;
      if (rows <= 1 || down % item == 0) {
        matrix.leading = rows <= 1 ? columns : down / item;
        break;
      }
    } else if (down == item || rows <= 1) {
      matrix.transposed = true;
      if (right % item == 0) {
        matrix.leading = right / item;
        break;
      }
    }
    array = array.copy();
  }
  matrix.array = std::move(array);
  return matrix;
}

inline Matrix transpose(Matrix matrix) noexcept {
  std::swap(matrix.rows, matrix.columns);
  matrix.transposed = !matrix.transposed;
  return matrix;
}

// True if rows of `array` may be written where they lie.
inline bool writes_in_place(const Array& array) noexcept {
  const int64_t item = array.item_bytes(), rows = array.size(0), columns = array.size(1);
  return (columns <= 1 || array.stride(1) == item) &&
         (rows <= 1 || (array.stride(0) >= columns * item && array.stride(0) % item == 0));
}

inline int64_t leading_dimension(const Array& array) noexcept {
  return array.size(0) <= 1 ? array.size(1) : array.stride(0) / array.item_bytes();
}

// Of a product of m x k by k x n: multiplications and additions, and about what they take one core.
inline double operations_of(int64_t m, int64_t n, int64_t k) noexcept {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}
inline double nanoseconds_of(int64_t m, int64_t n, int64_t k) noexcept { return operations_of(m, n, k) / 80; }

}  // namespace gradring

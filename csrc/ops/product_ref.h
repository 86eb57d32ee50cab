// Products of matrices in double, for references: plain sums in the order of k, in loops that a compiler can vectorize.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/cast/half.h"

namespace gradring::reference {

inline double widened(Bfloat value) { return static_cast<double>(bfloat_to_float(value)); }
inline double widened(float value) { return static_cast<double>(value); }
inline double widened(double value) { return value; }

// op(from), which has `rows` rows of `columns` elements, in double and row after row. Row i of `from` begins at i * ld, and op
// transposes if `transposed`.
template <class T>
std::vector<double> matrix(const T* from, int64_t rows, int64_t columns, int64_t ld, bool transposed) {
  std::vector<double> made;
  made.reserve(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) made.push_back(widened(transposed ? from[j * ld + i] : from[i * ld + j]));
  return made;
}

// Adds factor * from to `to`: n numbers, eight at a time, because builds for tests do not vectorize loops. Both are memory of the
// caller alone, so no sanitizer has to watch each access.
__attribute__((no_sanitize("address", "thread", "undefined"))) inline void add_scaled(double* to, double factor,
                                                                                      const double* from,
                                                                                      int64_t n) noexcept {
  using Eight [[gnu::vector_size(64), gnu::aligned(8), gnu::may_alias]] = double;
  int64_t j = 0;
  for (; j + 8 <= n; j += 8) *reinterpret_cast<Eight*>(to + j) += factor * *reinterpret_cast<const Eight*>(from + j);
  for (; j < n; ++j) to[j] += factor * from[j];
}

// Adds the product of a (m x k) and b (k x n) to sums (m x n).
inline void add_product(std::vector<double>& sums, const std::vector<double>& a, const std::vector<double>& b,
                        int64_t m, int64_t n, int64_t k) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t p = 0; p < k; ++p)
      add_scaled(sums.data() + i * n, a[static_cast<size_t>(i * k + p)], b.data() + p * n, n);
}

}  // namespace gradring::reference

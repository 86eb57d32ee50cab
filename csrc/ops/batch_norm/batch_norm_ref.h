// The reference: scalar, in double, one column at a time.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace gradring::reference {

struct ColumnMoments {
  double mean = 0, variance = 0;
};

template <class T>
ColumnMoments column_moments(const std::vector<T>& x, int64_t rows, int64_t columns, int64_t j) {
  ColumnMoments m;
  for (int64_t i = 0; i < rows; ++i) m.mean += double(x[size_t(i * columns + j)]) / double(rows);
  for (int64_t i = 0; i < rows; ++i) {
    const double d = x[size_t(i * columns + j)] - m.mean;
    m.variance += d * d / double(rows);
  }
  return m;
}

// Column j of dx in training, by the definition: the derivative of each y by each x, one at a time.
template <class T>
std::vector<double> batch_norm_column_vjp(const std::vector<T>& dy, const std::vector<T>& x, double weight,
                                          const ColumnMoments& m, int64_t rows, int64_t columns, int64_t j,
                                          double eps) {
  const double r = 1 / std::sqrt(m.variance + eps);
  std::vector<double> dx(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) {
    const double hat = (x[size_t(i * columns + j)] - m.mean) * r;
    for (int64_t k = 0; k < rows; ++k) {
      const double other = (x[size_t(k * columns + j)] - m.mean) * r;
      const double slope = ((i == k) - 1 / double(rows) - hat * other / double(rows)) * r;
      dx[size_t(k)] += dy[size_t(i * columns + j)] * weight * slope;
    }
  }
  return dx;
}

}  // namespace gradring::reference

// The reference: scalar, in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace gradring::reference {

template <class T>
double root_mean_square(const T* x, int64_t columns, double eps) {
  double sum = 0;
  for (int64_t j = 0; j < columns; ++j) sum += double(x[j]) * double(x[j]);
  return std::sqrt(sum / double(columns) + eps);
}

// Normalizes one row; weight may be null.
template <class T>
std::vector<double> rms_norm(const T* x, const T* weight, int64_t columns, double eps) {
  const double rms = root_mean_square(x, columns, eps);
  std::vector<double> y;
  for (int64_t j = 0; j < columns; ++j) y.push_back(x[j] / rms * (weight ? double(weight[j]) : 1));
  return y;
}

// Returns dx of one row by the definition: the derivative of each y by each x. Adds to dweight.
template <class T>
std::vector<double> rms_norm_vjp(const T* dy, const T* x, const T* weight, int64_t columns, double eps,
                                 std::vector<double>* dweight) {
  const double rms = root_mean_square(x, columns, eps);
  std::vector<double> dx(static_cast<size_t>(columns));
  for (int64_t j = 0; j < columns; ++j) {
    (*dweight)[size_t(j)] += dy[j] * x[j] / rms;
    for (int64_t i = 0; i < columns; ++i) {
      const double slope = (i == j) / rms - double(x[j]) * double(x[i]) / (double(columns) * rms * rms * rms);
      dx[size_t(i)] += dy[j] * (weight ? double(weight[j]) : 1) * slope;
    }
  }
  return dx;
}

}  // namespace gradring::reference

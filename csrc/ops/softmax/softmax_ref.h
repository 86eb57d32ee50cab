// The reference: scalar, in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace gradring::reference {

template <class T>
std::vector<double> softmax(const T* x, int64_t columns, bool logarithm) {
  double max = -INFINITY, sum = 0;
  for (int64_t j = 0; j < columns; ++j) max = std::fmax(max, x[j]);
  for (int64_t j = 0; j < columns; ++j) sum += std::exp(x[j] - max);
  std::vector<double> y;
  for (int64_t j = 0; j < columns; ++j) y.push_back(x[j] - max - std::log(sum));
  if (!logarithm) {
    for (double& value : y) value = std::exp(value);
  }
  return y;
}

template <class T>
std::vector<double> softmax_vjp(const T* dy, const T* y, int64_t columns, bool logarithm) {
  double sum = 0;
  for (int64_t j = 0; j < columns; ++j) sum += logarithm ? double(dy[j]) : double(dy[j]) * y[j];
  std::vector<double> dx;
  for (int64_t j = 0; j < columns; ++j) dx.push_back(logarithm ? dy[j] - std::exp(y[j]) * sum : y[j] * (dy[j] - sum));
  return dx;
}

}  // namespace gradring::reference

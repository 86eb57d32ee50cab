// The reference: scalar, in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace gradring::reference {

struct Moments {
  double mean = 0, deviation = 0;
};

template <class T>
Moments moments(const T* x, int64_t columns, double eps) {
  Moments m;
  for (int64_t j = 0; j < columns; ++j) m.mean += double(x[j]) / double(columns);
  double variance = 0;
  for (int64_t j = 0; j < columns; ++j) variance += (x[j] - m.mean) * (x[j] - m.mean) / double(columns);
  m.deviation = std::sqrt(variance + eps);
  return m;
}

// Normalizes one row; weight and bias may be null.
template <class T>
std::vector<double> layer_norm(const T* x, const T* weight, const T* bias, int64_t columns, double eps) {
  const Moments m = moments(x, columns, eps);
  std::vector<double> y;
  for (int64_t j = 0; j < columns; ++j) {
    y.push_back((x[j] - m.mean) / m.deviation * (weight ? double(weight[j]) : 1) + (bias ? double(bias[j]) : 0));
  }
  return y;
}

// Returns dx of one row by the definition: the derivative of each y by each x. Adds to dweight and dbias.
template <class T>
std::vector<double> layer_norm_vjp(const T* dy, const T* x, const T* weight, int64_t columns, double eps,
                                   std::vector<double>* dweight, std::vector<double>* dbias) {
  const Moments m = moments(x, columns, eps);
  std::vector<double> dx(static_cast<size_t>(columns));
  for (int64_t j = 0; j < columns; ++j) {
    const double hat = (x[j] - m.mean) / m.deviation;
    (*dweight)[size_t(j)] += dy[j] * hat;
    (*dbias)[size_t(j)] += dy[j];
    for (int64_t i = 0; i < columns; ++i) {
      const double other = (x[i] - m.mean) / m.deviation;
      const double slope = ((i == j) - 1.0 / double(columns) - hat * other / double(columns)) / m.deviation;
      dx[size_t(i)] += dy[j] * (weight ? double(weight[j]) : 1) * slope;
    }
  }
  return dx;
}

}  // namespace gradring::reference

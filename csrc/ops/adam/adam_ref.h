// The reference: scalar, in double.
#pragma once

#include <algorithm>
#include <cmath>

#include "ops/adam/adam.h"

namespace gradring::reference {

template <class T>
void adam(const AdamArguments<T>& g, int64_t i, double* param, double* m, double* v, double* vmax = nullptr) {
  const auto t = static_cast<double>(g.step);
  double p = g.param[i], d = double(g.grad[i]) * g.grad_scale;
  if (g.decoupled) {
    p -= g.lr * g.weight_decay * p;
  } else {
    d += g.weight_decay * p;
  }
  *m = g.beta1 * double(g.m[i]) + (1 - g.beta1) * d;
  *v = g.beta2 * double(g.v[i]) + (1 - g.beta2) * d * d;
  if (vmax != nullptr) *vmax = std::max(double(g.vmax[i]), *v);
  const double m_hat = *m / (1 - std::pow(g.beta1, t)),
               v_hat = (vmax != nullptr ? *vmax : *v) / (1 - std::pow(g.beta2, t));
  *param = p - g.lr * m_hat / (std::sqrt(v_hat) + g.eps);
}

}  // namespace gradring::reference

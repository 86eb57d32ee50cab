// The reference: scalar, in double.
#pragma once

#include "ops/lion/lion.h"

namespace gradring::reference {

// Computes, for element i, the number whose sign is the direction, and the new mean.
template <class T>
void lion(const LionArguments<T>& g, int64_t i, double* direction, double* m) {
  const double d = double(g.grad[i]) * g.grad_scale;
  *direction = g.beta1 * double(g.m[i]) + (1 - g.beta1) * d;
  *m = g.beta2 * double(g.m[i]) + (1 - g.beta2) * d;
}

template <class T>
double lion_param(const LionArguments<T>& g, int64_t i, double direction) {
  const double sign = direction > 0 ? 1 : direction < 0 ? -1 : direction;
  return (1 - g.lr * g.weight_decay) * double(g.param[i]) - g.lr * sign;
}

}  // namespace gradring::reference

// The reference: scalar, in double.
#pragma once

#include "ops/sgd/sgd.h"

namespace gradring::reference {

// Returns the new parameter and velocity of element i.
template <class T>
void sgd(const SgdArguments<T>& g, int64_t i, double* param, double* velocity) {
  double d = double(g.grad[i]) * g.grad_scale + g.weight_decay * double(g.param[i]);
  if (g.momentum != 0) {
    *velocity = g.momentum * double(g.velocity[i]) + d;
    d = g.nesterov ? d + g.momentum * *velocity : *velocity;
  }
  *param = double(g.param[i]) - g.lr * d;
}

}  // namespace gradring::reference

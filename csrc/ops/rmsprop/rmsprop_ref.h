// The reference: scalar, in double.
#pragma once

#include <algorithm>
#include <cmath>

#include "ops/rmsprop/rmsprop.h"

namespace gradring::reference {

// Returns the new values of element i.
struct Rmsprop {
  double param, v, mean, velocity;
};

template <class T>
Rmsprop rmsprop(const RmspropArguments<T>& g, int64_t i) {
  const double d = double(g.grad[i]) * g.grad_scale + g.weight_decay * double(g.param[i]);
  Rmsprop made{};
  made.v = g.alpha * double(g.v[i]) + (1 - g.alpha) * d * d;
  double spread = made.v;
  if (g.mean != nullptr) {
    made.mean = g.alpha * double(g.mean[i]) + (1 - g.alpha) * d;
    spread = std::max(0.0, made.v - made.mean * made.mean);
  }
  double step = d / (std::sqrt(spread) + g.eps);
  if (g.velocity != nullptr) step = made.velocity = g.momentum * double(g.velocity[i]) + step;
  made.param = double(g.param[i]) - g.lr * step;
  return made;
}

}  // namespace gradring::reference

// lion_update: one pass over flat arenas (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, algorithm 2):
//   g = grad * grad_scale;   u = sign(beta1 m + (1 - beta1) g)
//   param = (1 - lr * weight_decay) param - lr * u;   m = beta2 m + (1 - beta2) g
// The sign of 0 is 0, and that of NaN is NaN.
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

template <class T>
struct LionArguments {
  int64_t n = 0;
  T* param = nullptr;
  const T* grad = nullptr;
  T* m = nullptr;
  double lr = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0;
  double grad_scale = 1;  // the clip factor / the samples' total weight
};

template <class T>
void lion_update(const Lane& lane, const LionArguments<T>& arguments) noexcept;

int lion_lanes(int64_t n, int lanes) noexcept;

}  // namespace gradring

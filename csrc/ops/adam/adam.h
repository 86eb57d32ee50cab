// adam_update and adamw_update: one pass over flat arenas (Kingma and Ba 2015; Loshchilov and Hutter 2019), with
// PyTorch's arrangement of the formula:
//   g = grad * grad_scale;   adam: g += weight_decay * param;   adamw: param *= 1 - lr * weight_decay
//   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//   param -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
// With vmax, the last line uses the largest v so far in place of v (AMSGrad: Reddi, Kale and Kumar 2018).
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

template <class T>
struct AdamArguments {
  int64_t n = 0;
  T* param = nullptr;
  const T* grad = nullptr;
  T* m = nullptr;
  T* v = nullptr;
  int64_t step = 1;  // counts from 1
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  bool decoupled = false;  // adamw
  double grad_scale = 1;   // the clip factor / the samples' total weight
  T* vmax = nullptr;       // AMSGrad; may be null
};

template <class T>
void adam_update(const Lane& lane, const AdamArguments<T>& arguments) noexcept;

// The scalar factors of a step, in double.
struct AdamFactors {
  double step_size;  // lr / (1 - beta1^step)
  double root;       // 1 / sqrt(1 - beta2^step)
};

AdamFactors adam_factors(int64_t step, double lr, double beta1, double beta2) noexcept;

// A parameter that is a matrix, which is updated tile by tile as a product computes its gradient (grad is not read).
template <class T>
struct AdamMatrix {
  AdamArguments<T> whole;
  AdamFactors factors;
  int64_t columns = 0;
};

// The function that updates a tile, at the active ISA level and with the bits of adam_update. Its `context` is an AdamMatrix<T>.
template <class T>
TileUpdate<T> adam_tile_update() noexcept;

int adam_lanes(int64_t n, int lanes) noexcept;

}  // namespace gradring

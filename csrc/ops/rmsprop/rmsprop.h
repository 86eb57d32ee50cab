// rmsprop_update: one pass over flat arenas (Tieleman and Hinton, "Lecture 6.5 - RMSProp", 2012; Graves, "Generating
// Sequences With Recurrent Neural Networks", 2013, for the centered form), with torch.optim.RMSprop's arrangement:
//   g = grad * grad_scale + weight_decay * param
//   v = alpha v + (1 - alpha) g^2;   mean = alpha mean + (1 - alpha) g                (centered)
//   d = g / (sqrt(v - mean^2) + eps);   velocity = momentum velocity + d;   param -= lr * velocity
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

template <class T>
struct RmspropArguments {
  int64_t n = 0;
  T* param = nullptr;
  const T* grad = nullptr;
  T* v = nullptr;
  T* mean = nullptr;      // the running mean of the gradient, for `centered`; may be null
  T* velocity = nullptr;  // with momentum; may be null
  double lr = 1e-2;
  double alpha = 0.99;
  double eps = 1e-8;
  double momentum = 0;
  double weight_decay = 0;
  double grad_scale = 1;  // the clip factor / the samples' total weight
};

template <class T>
void rmsprop_update(const Lane& lane, const RmspropArguments<T>& arguments) noexcept;

int rmsprop_lanes(int64_t n, int lanes) noexcept;

}  // namespace gradring

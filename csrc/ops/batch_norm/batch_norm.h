// batch_norm of (rows, columns) (Ioffe and Szegedy 2015, arXiv:1502.03167): each column is normalized by its mean and
// variance, y = (x - mean) / sqrt(variance + eps) * weight + bias. Training uses the mean and variance of the batch,
// inference the running ones.
//
// Training reads x twice. The first pass takes a block of 32 rows at a time: its mean, and then, while it is in cache,
// its squared differences. The blocks' moments are merged in order (Chan, Golub and LeVeque 1979), so a large mean costs
// no accuracy and the number of lanes changes no bit.
#pragma once

#include <cstdint>

#include "ops/row_blocks.h"

namespace gradring {

template <class T>
struct BatchNormArguments {
  int64_t rows = 0, columns = 0;
  const T* x = nullptr;       // rows lie one after another
  const T* weight = nullptr;  // null: ones
  const T* bias = nullptr;    // null: zeros
  // Inference reads these. Training moves them, if they are given, towards the batch's moments: running =
  // (1 - momentum) running + momentum batch, where the batch's variance has Bessel's correction.
  T* running_mean = nullptr;
  T* running_var = nullptr;
  T* y = nullptr;  // may be x
  // Training writes the batch's moments (without Bessel's correction) to these, if they are given, for the vjp.
  T* mean = nullptr;
  T* variance = nullptr;
  bool training = false;
  double momentum = 0.1, eps = 1e-5;
};

// With r = 1 / sqrt(variance + eps), xhat = (x - mean) r:
//   dweight = sum over rows of dy xhat;  dbias = sum over rows of dy
//   dx = weight r (dy - dbias / rows - xhat dweight / rows) in training, else weight r dy
// Every result may be null; dx may be dy or x.
template <class T>
struct BatchNormVjpArguments {
  int64_t rows = 0, columns = 0;
  const T* dy = nullptr;
  const T* x = nullptr;
  const T* weight = nullptr;
  const T* mean = nullptr;  // what the forward pass used; if both are null, training computes them again
  const T* variance = nullptr;
  T* dx = nullptr;
  T* dweight = nullptr;
  T* dbias = nullptr;
  bool training = false;
  double eps = 1e-5;
};

// Moves running moments as training does. `mean` and `variance` are those of `rows` rows, not corrected.
template <class T>
struct BatchNormUpdateArguments {
  int64_t rows = 0, columns = 0;
  T* running_mean = nullptr;
  T* running_var = nullptr;
  const T* mean = nullptr;
  const T* variance = nullptr;
  double momentum = 0.1;
};

template <class T>
void batch_norm(const Lane& lane, const BatchNormArguments<T>& arguments) noexcept;
template <class T>
void batch_norm_vjp(const Lane& lane, const BatchNormVjpArguments<T>& arguments) noexcept;
template <class T>
void batch_norm_update(const Lane& lane, const BatchNormUpdateArguments<T>& arguments) noexcept;

int batch_norm_lanes(int64_t rows, int64_t columns, int lanes) noexcept;
ScratchBytes batch_norm_scratch(int64_t rows, int64_t columns, size_t element, bool training) noexcept;
ScratchBytes batch_norm_vjp_scratch(int64_t rows, int64_t columns, size_t element) noexcept;

}  // namespace gradring

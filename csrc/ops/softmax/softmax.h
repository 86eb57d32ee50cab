// softmax and log_softmax over the last axis: y = exp(x - max) / sum, or x - max - log(sum).
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

template <class T>
struct SoftmaxArguments {
  int64_t rows = 0, columns = 0;
  const T* x = nullptr;  // rows lie one after another
  T* y = nullptr;        // may be x
  bool logarithm = false;
};

// softmax: dx = y (dy - sum(dy y)); log_softmax: dx = dy - exp(y) sum(dy). y: the output. dx may be dy.
template <class T>
struct SoftmaxVjpArguments {
  int64_t rows = 0, columns = 0;
  const T* dy = nullptr;
  const T* y = nullptr;
  T* dx = nullptr;
  bool logarithm = false;
};

template <class T>
void softmax(const Lane& lane, const SoftmaxArguments<T>& arguments) noexcept;
template <class T>
void softmax_vjp(const Lane& lane, const SoftmaxVjpArguments<T>& arguments) noexcept;

int softmax_lanes(int64_t rows, int64_t columns, int lanes) noexcept;

}  // namespace gradring

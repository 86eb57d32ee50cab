// A formula that several optimizers use, as the same source for CPUs and GPUs.
#pragma once

#include "ops/math/math.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The running mean of the square: decay * before + rest * d * d.
template <class T>
GRADRING_INLINE Vec<T> running_square(Vec<T> before, Vec<T> d, T decay, T rest) noexcept {
  const T large_gradient = static_cast<T>(sizeof(T) == 4 ? 1e18 : 1e153);
  const Vec<T> one = Vec<T>{} + T(1), every_rest = Vec<T>{} + rest;
  // Compute (rest * d) * d where d * d would overflow, and rest * (d * d) elsewhere.
  const IntVec<T> large = abs<T>(d) > large_gradient;
  const Vec<T> scaled = d * rest;
  const Vec<T> square = d * (large ? scaled : d);
  return before * decay + square * (large ? one : every_rest);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

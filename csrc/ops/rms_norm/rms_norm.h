// rms_norm over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467): y = x / sqrt(mean(x^2) + eps) * weight, where
// the mean is that of a row.
//
// A row is read from memory once: its second pass finds it in cache.
#pragma once

#include <cstdint>

#include "ops/row_blocks.h"

namespace gradring {

template <class T>
struct RmsNormArguments {
  int64_t rows = 0, columns = 0;
  const T* x = nullptr;       // rows lie one after another
  const T* weight = nullptr;  // null: ones
  T* y = nullptr;             // may be x
  double eps = 1e-6;
};

// With r = 1 / sqrt(mean(x^2) + eps), xhat = x r and g = dy * weight:
//   dx = (g - xhat mean(g xhat)) r;  dweight = sum over rows of dy xhat
// Every result may be null; dx may be dy or x.
template <class T>
struct RmsNormVjpArguments {
  int64_t rows = 0, columns = 0;
  const T* dy = nullptr;
  const T* x = nullptr;
  const T* weight = nullptr;
  T* dx = nullptr;
  T* dweight = nullptr;
  double eps = 1e-6;
};

template <class T>
void rms_norm(const Lane& lane, const RmsNormArguments<T>& arguments) noexcept;
template <class T>
void rms_norm_vjp(const Lane& lane, const RmsNormVjpArguments<T>& arguments) noexcept;

int rms_norm_lanes(int64_t rows, int64_t columns, int lanes) noexcept;
// The scratch memory of the vjp: for each block, the sums over its rows for dweight.
ScratchBytes rms_norm_vjp_scratch(int64_t rows, int64_t columns, size_t element) noexcept;

}  // namespace gradring

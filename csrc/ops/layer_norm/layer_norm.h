// layer_norm over the last axis (Ba, Kiros and Hinton 2016): y = (x - mean) / sqrt(variance + eps) * weight + bias,
// where mean and variance are those of a row. The variance has no Bessel's correction.
//
// A row is read from memory once: its later passes find it in cache. The kernel computes the mean before the
// squares of the differences, so a large mean costs no accuracy.
#pragma once

#include <cstdint>

#include "ops/row_blocks.h"

namespace gradring {

template <class T>
struct LayerNormArguments {
  int64_t rows = 0, columns = 0;
  const T* x = nullptr;       // rows lie one after another
  const T* weight = nullptr;  // null: ones
  const T* bias = nullptr;    // null: zeros
  T* y = nullptr;             // may be x
  double eps = 1e-5;
};

// With xhat = (x - mean) / deviation and g = dy * weight:
//   dx = (g - mean(g) - xhat mean(g xhat)) / deviation;  dweight, dbias = sums over rows of dy xhat, dy
// Every result may be null; dx may be dy or x.
template <class T>
struct LayerNormVjpArguments {
  int64_t rows = 0, columns = 0;
  const T* dy = nullptr;
  const T* x = nullptr;
  const T* weight = nullptr;
  T* dx = nullptr;
  T* dweight = nullptr;
  T* dbias = nullptr;
  double eps = 1e-5;
};

template <class T>
void layer_norm(const Lane& lane, const LayerNormArguments<T>& arguments) noexcept;
template <class T>
void layer_norm_vjp(const Lane& lane, const LayerNormVjpArguments<T>& arguments) noexcept;

int layer_norm_lanes(int64_t rows, int64_t columns, int lanes) noexcept;
// The scratch memory of the vjp: for each block, the sums over its rows for dweight and dbias.
ScratchBytes layer_norm_vjp_scratch(int64_t rows, int64_t columns, size_t element, bool sums) noexcept;

}  // namespace gradring

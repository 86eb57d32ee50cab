// All optimizers' kernels share this loop over a part of a parameter and of its gradient. The part is a lane's share of a flat
// arena, or a tile of a matrix whose gradient a product computes.
#pragma once

#include "ops/simd.h"
#include "ops/simd_tail.h"
#include "ops/work.h"
#include "runtime/lane.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
struct GradientPart {
  int64_t first = 0;  // the place of the part's first element in the parameter
  int64_t rows = 1, columns = 0;
  int64_t stride = 0;  // the distance between rows of the parameter, in elements
  const T* gradient = nullptr;
  int64_t gradient_stride = 0;  // the distance between rows of the gradient, in elements
};

template <class T>
GRADRING_INLINE GradientPart<T> lane_part(const Lane& lane, int64_t n, const T* gradient) noexcept {
  const Range part = split(lane, n, kFlatGrain);
  return {part.begin, 1, part.end - part.begin, 0, gradient + part.begin, 0};
}

// Describes the tile that a TileUpdate receives; `stride` is the number of the parameter's columns.
template <class T>
GRADRING_INLINE GradientPart<T> tile_part(int64_t stride, int64_t row, int64_t rows, int64_t column, int64_t columns,
                                          const T* tile, int64_t ld) noexcept {
  return {row * stride + column, rows, columns, stride, tile, ld};
}

// Whether the part consists of short whole rows, which end within a vector and lie one after another. The load of a row would wait
// for the store of the row before: both touch the bytes between the end of that row and the end of its vector.
template <class T>
GRADRING_INLINE bool short_rows(const GradientPart<T>& part) noexcept {
  constexpr int64_t W = kWidth<T>;
  return part.rows > 1 && part.columns == part.stride && part.columns % W != 0 && part.columns < 4 * W;
}

inline constexpr int64_t kFlatBytes = 2048;

// Calls step(place in the parameter, gradient, get, put) for each vector of the part. get and put load and store
// as many elements as the vector holds, in any array with the parameter's layout.
template <class T, class Step>
GRADRING_INLINE void for_gradient(const GradientPart<T>& given, const Step& step) noexcept {
  constexpr int64_t W = kWidth<T>;
  GradientPart<T> part = given;
  alignas(64) T flat[kFlatBytes / static_cast<int64_t>(sizeof(T))];
  if (short_rows(given) && (given.rows * given.columns + W) * static_cast<int64_t>(sizeof(T)) <= kFlatBytes) {
    // Rows of the gradient are copied as whole vectors, from the first to the last: each covers what the one before wrote too much.
    T* to = flat;
    for (int64_t row = 0; row < given.rows; ++row, to += given.columns) {
      const T* const from = given.gradient + row * given.gradient_stride;
      int64_t i = 0;
      for (; i + W <= given.columns; i += W) store(to + i, load(from + i));
      store(to + i, Tail<T>(given.columns - i).load(from + i));
    }
    part = {given.first, 1, given.rows * given.columns, 0, flat, 0};
  }
  const int64_t columns = part.columns, whole = columns / W * W;
  const Tail<T> tail(columns - whole);
  const auto get = [](const T* from) __attribute__((always_inline)) { return load(from); };
  const auto put = [](T * to, Vec<T> v) __attribute__((always_inline)) { store(to, v); };
  const auto get_tail = [&](const T* from) __attribute__((always_inline)) { return tail.load(from); };
  const auto put_tail = [&](T * to, Vec<T> v) __attribute__((always_inline)) { tail.store(to, v); };
  const T* gradient = part.gradient;
  for (int64_t row = 0; row < part.rows; ++row) {
    const int64_t first = part.first + row * part.stride;
    int64_t i = 0;
    if constexpr (kSmallCode) {
      for (; i < columns; i += W) {
        const Tail<T> some(columns - i < W ? columns - i : W);
        const auto get_some = [&](const T* from) { return some.load(from); };
        step(first + i, get_some(gradient + i), get_some, [&](T* to, Vec<T> v) { some.store(to, v); });
      }
      gradient += part.gradient_stride;
      continue;
    }
    for (; i + 2 * W <= columns; i += 2 * W) {
      step(first + i, get(gradient + i), get, put);
      step(first + i + W, get(gradient + i + W), get, put);
    }
    if (i < whole) step(first + i, get(gradient + i), get, put);
    if (whole < columns) step(first + whole, get_tail(gradient + whole), get_tail, put_tail);
    gradient += part.gradient_stride;
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

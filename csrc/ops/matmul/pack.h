// Packing: copies of A and B in the order in which the micro-kernel reads them.
#pragma once

#include <utility>

#include "ops/matmul/tile.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// One exchange of a butterfly: x[i + kStep] and y[i] change places, for every i without the bit kStep.
template <class T, int kStep, int... kElement>
GRADRING_INLINE void exchange(Vec<T>& x, Vec<T>& y, std::integer_sequence<int, kElement...>) noexcept {
  constexpr int kW = kWidth<T>;
  const Vec<T> low = __builtin_shufflevector(x, y, ((kElement & kStep) ? kW + kElement - kStep : kElement)...);
  const Vec<T> high = __builtin_shufflevector(x, y, ((kElement & kStep) ? kW + kElement : kElement + kStep)...);
  x = low;
  y = high;
}

template <class T, int kStep>
GRADRING_INLINE void transpose_stage(Vec<T> (&v)[kWidth<T>]) noexcept {
  constexpr int kW = kWidth<T>;
  if constexpr (kStep < kW) {
#pragma GCC unroll 16
    for (int i = 0; i < kW; ++i)
      if (!(i & kStep)) exchange<T, kStep>(v[i], v[i + kStep], std::make_integer_sequence<int, kW>{});
    transpose_stage<T, kStep * 2>(v);
  }
}

// Sets to[p * to_stride + r] = from[r * from_stride + p] for r < rows <= width, p < steps. It writes whole
// vectors: elements from `rows` on become 0.
template <class T>
void pack_transposed(const T* from, int64_t from_stride, int64_t rows, int64_t steps, T* to,
                     int64_t to_stride) noexcept {
  constexpr int kW = kWidth<T>;
  int64_t p = 0;
  for (; p + kW <= steps; p += kW) {
    Vec<T> v[kW];
    if (rows == kW) {
#pragma GCC unroll 16
      for (int r = 0; r < kW; ++r) v[r] = load(from + r * from_stride + p);
    } else {
#pragma GCC unroll 16
      for (int r = 0; r < kW; ++r) v[r] = r < rows ? load(from + r * from_stride + p) : Vec<T>{};
    }
    transpose_stage<T, 1>(v);
#pragma GCC unroll 16
    for (int r = 0; r < kW; ++r) store(to + (p + r) * to_stride, v[r]);
  }
  if (p == steps) return;
  const Tail<T> tail(steps - p);
  Vec<T> v[kW];
#pragma GCC unroll 16
  for (int r = 0; r < kW; ++r) v[r] = r < rows ? tail.load(from + r * from_stride + p) : Vec<T>{};
  transpose_stage<T, 1>(v);
#pragma GCC unroll 16
  for (int r = 0; r < kW; ++r)
    if (p + r < steps) store(to + (p + r) * to_stride, v[r]);
}

// Sets to[p * to_stride + r] = from[p * from_stride + r] for r < rows <= width; the rest of the vector becomes 0.
template <class T>
void pack_rows(const T* from, int64_t from_stride, int64_t rows, int64_t steps, T* to, int64_t to_stride) noexcept {
  const Tail<T> tail(rows);
  if (rows == kWidth<T>) {
    for (int64_t p = 0; p < steps; ++p) {
      __builtin_prefetch(from + (p + 16) * from_stride);
      store(to + p * to_stride, load(from + p * from_stride));
    }
  } else {
    for (int64_t p = 0; p < steps; ++p) {
      __builtin_prefetch(from + (p + 16) * from_stride);
      store(to + p * to_stride, tail.load(from + p * from_stride));
    }
  }
}

// Packs a tile's rows of op(A) for a range of steps; `a` points at the first element. Steps are to_stride apart: kPackedRows, or at least
// `rows` if those fit into a vector. Whole vectors are written, and each step overwrites what the one before wrote beyond its rows.
template <class T>
void pack_a(const T* a, int64_t lda, bool transposed, int64_t rows, int64_t steps, T* to, int64_t to_stride) noexcept {
  constexpr int kW = kWidth<T>;
  for (int64_t r = 0; r < rows; r += kW) {
    const int64_t count = rows - r < kW ? rows - r : kW;
    if (transposed) {
      pack_rows(a + r, lda, count, steps, to + r, to_stride);
    } else {
      pack_transposed(a + r * lda, lda, count, steps, to + r, to_stride);
    }
  }
}

// pack_transposed for a panel of B whose columns fill vectors. The compiler knows the distance between stores here, so their addresses
// cost no instructions.
template <class T>
GRADRING_INLINE void pack_whole(const T* b, int64_t ldb, int64_t steps, T* to) noexcept {
  constexpr int kW = kWidth<T>;
  Vec<T> v[kW];
  for (; steps >= kW; steps -= kW) {
#pragma GCC unroll 16
    for (int r = 0; r < kW; ++r) v[r] = load(b + r * ldb);
    transpose_stage<T, 1>(v);
#pragma GCC unroll 16
    for (int r = 0; r < kW; ++r) store(to + r * kTileColumns<T>, v[r]);
    b += kW;
    to += kW * kTileColumns<T>;
  }
  if (steps == 0) return;
  const Tail<T> tail(steps);
#pragma GCC unroll 16
  for (int r = 0; r < kW; ++r) v[r] = tail.load(b + r * ldb);
  transpose_stage<T, 1>(v);
#pragma GCC unroll 16
  for (int r = 0; r < kW - 1; ++r)
    if (r < steps) store(to + r * kTileColumns<T>, v[r]);
}

// Packs a panel of op(B), where B is transposed in memory; steps are kTileColumns apart.
template <class T>
void pack_b_transposed(const T* b, int64_t ldb, int64_t columns, int64_t steps, T* to) noexcept {
  constexpr int kW = kWidth<T>;
  for (int64_t j = 0; j < columns; j += kW) {
    const int64_t count = columns - j < kW ? columns - j : kW;
    if (!kSmallCode && count == kW) {
      pack_whole(b + j * ldb, ldb, steps, to + j);
    } else {
      pack_transposed(b + j * ldb, ldb, count, steps, to + j, kTileColumns<T>);
    }
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// A row in registers, for softmax and cross entropy. A row of up to kMaxRow vectors stays in registers throughout.
#pragma once

#include "ops/simd/loops.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int kMaxRow = 4;

// N vectors; the last holds `tail` elements (1 to a vector's width).
template <class T, int N>
struct Row {
  Vec<T> v[N];
};

template <class T, int N>
GRADRING_INLINE Row<T, N> load_row(const T* x, int64_t tail) noexcept {
  Row<T, N> row;
#pragma GCC unroll 4
  for (int i = 0; i < N - 1; ++i) row.v[i] = load<T>(x + i * kWidth<T>);
  row.v[N - 1] = load_partial<T>(x + (N - 1) * kWidth<T>, tail);
  return row;
}

template <class T, int N>
GRADRING_INLINE void store_row(T* y, const Row<T, N>& row, int64_t tail) noexcept {
#pragma GCC unroll 4
  for (int i = 0; i < N - 1; ++i) store<T>(y + i * kWidth<T>, row.v[i]);
  store_partial<T>(y + (N - 1) * kWidth<T>, row.v[N - 1], tail);
}

template <class T, int N>
GRADRING_INLINE Vec<T> row_sum(const Row<T, N>& row) noexcept {
  Vec<T> sum = row.v[0];
#pragma GCC unroll 4
  for (int i = 1; i < N; ++i) sum += row.v[i];
  return horizontal_sum<T>(sum);
}

template <class T, int N>
GRADRING_INLINE Vec<T> row_max(const Row<T, N>& row, IntVec<T> valid) noexcept {
  Vec<T> max = valid ? row.v[N - 1] : broadcast<T>(-Float<T>::kInfinity);
#pragma GCC unroll 4
  for (int i = 0; i < N - 1; ++i) max = maximum<T>(max, row.v[i]);
  return horizontal_max<T>(max);
}

// Returns exp(row - max), and 0 beyond the tail.
template <class T, int N>
GRADRING_INLINE Row<T, N> row_exp(const Row<T, N>& row, Vec<T> max, IntVec<T> valid) noexcept {
  Row<T, N> e;
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) e.v[i] = math::exp<T>(row.v[i] - max);
  e.v[N - 1] = valid ? e.v[N - 1] : Vec<T>{};
  return e;
}

// The functions below do the same steps for longer rows, which stay in memory.

template <class T>
GRADRING_INLINE Vec<T> long_row_max(const T* x, int64_t columns) noexcept {
  constexpr int64_t W = kWidth<T>;
  Vec<T> max[4];
  for (Vec<T>& m : max) m = broadcast<T>(-Float<T>::kInfinity);
  int64_t j = 0;
  for (; j + 4 * W <= columns; j += 4 * W) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) max[i] = maximum<T>(max[i], load<T>(x + j + i * W));
  }
  for (; j + W <= columns; j += W) max[0] = maximum<T>(max[0], load<T>(x + j));
  if (j < columns) {
    const Vec<T> last = load_partial<T>(x + j, columns - j);
    max[1] = maximum<T>(max[1], first_elements<T>(columns - j) ? last : max[1]);
  }
  return horizontal_max<T>(maximum<T>(maximum<T>(max[0], max[1]), maximum<T>(max[2], max[3])));
}

// Returns the sum of exp(x - max), and writes the exponentials to `to` unless it is null.
template <class T>
GRADRING_INLINE Vec<T> long_row_exp(const T* x, T* to, int64_t columns, Vec<T> max) noexcept {
  Vec<T> sum{};
  for_vectors<T>(
      columns, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        Vec<T> e = math::exp<T>(load_up_to<T>(x + j, n) - max);
        if (n < kWidth<T>) e = first_elements<T>(n) ? e : Vec<T>{};
        if (to) store_up_to<T>(to + j, e, n);
        sum += e;
      });
  return horizontal_sum<T>(sum);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

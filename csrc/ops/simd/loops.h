// Loops over arrays: whole vectors first, and one partial vector at the end.
#pragma once

#include "ops/math/reduce.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// Calls step(first element, number of elements) for every whole vector, and then for the elements that are left.
template <class T, class Step>
GRADRING_INLINE void for_vectors(int64_t columns, Step step) noexcept {
  constexpr int64_t W = kWidth<T>;
  if constexpr (kSmallCode) {
    for (int64_t j = 0; j < columns; j += W) step(j, columns - j < W ? columns - j : W);
  } else {
    int64_t j = 0;
    for (; j + W <= columns; j += W) step(j, W);
    if (j < columns) step(j, columns - j);
  }
}

// Loads the first n elements; the others are 0. n is at most the width of a vector.
template <class T>
GRADRING_INLINE Vec<T> load_up_to(const T* x, int64_t n) noexcept {
  return n == kWidth<T> ? load<T>(x) : load_partial<T>(x, n);
}
template <class T>
GRADRING_INLINE void store_up_to(T* y, Vec<T> v, int64_t n) noexcept {
  if (n == kWidth<T>) {
    store<T>(y, v);
  } else {
    store_partial<T>(y, v, n);
  }
}

// Returns v with zeros from element n on.
template <class T>
GRADRING_INLINE Vec<T> keep_first(Vec<T> v, int64_t n) noexcept {
  return n == kWidth<T> ? v : first_elements<T>(n) ? v : Vec<T>{};
}

// The sum of term(first element, number of elements) over all elements; every element of the result holds it. The terms
// are added to four partial sums alternately, so that additions overlap. The number of columns alone decides which element
// goes into which sum. `term` must be 0 beyond its number of elements.
template <class T, class Term>
GRADRING_INLINE Vec<T> sum_over(int64_t columns, Term term) noexcept {
  constexpr int64_t W = kWidth<T>;
  Vec<T> sums[4] = {};
  if constexpr (kSmallCode) {
    const int64_t alternating = columns / (4 * W) * (4 * W);
    for (int64_t j = 0; j < columns; j += W) {
      const int64_t n = columns - j < W ? columns - j : W;
      sums[j < alternating ? j / W % 4 : n < W] += term(j, n);
    }
    return horizontal_sum<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  int64_t j = 0;
  for (; j + 4 * W <= columns; j += 4 * W) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sums[k] += term(j + k * W, W);
  }
  for (; j + W <= columns; j += W) sums[0] += term(j, W);
  if (j < columns) sums[1] += term(j, columns - j);
  return horizontal_sum<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// largest: the largest magnitude in each block of an array. An array is finite if and only if these magnitudes are, and
// they bound sums of products with its elements.
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

inline constexpr int64_t kLargestBlock = 4096;

constexpr int64_t largest_blocks(int64_t n) noexcept { return (n + kLargestBlock - 1) / kLargestBlock; }

// y[b] = max of |x[i]| over block b. A NaN counts as larger than infinity: y[b] is then a NaN.
template <class T>
struct LargestArguments {
  int64_t n = 0;
  const T* x = nullptr;
  T* y = nullptr;  // largest_blocks(n)
};

template <class T>
void largest(const Lane& lane, const LargestArguments<T>& arguments) noexcept;

}  // namespace gradring

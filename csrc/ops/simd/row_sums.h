// Sums over rows by blocks (see ops/row_blocks.h): each block's sums lie in a row of scratch memory, and are added in
// the blocks' order.
#pragma once

#include "ops/simd/loops.h"
#include "runtime/lane.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <class T>
GRADRING_INLINE void set_zero(T* values, int64_t n) noexcept {
  for_vectors<T>(
      n, [&](int64_t j, int64_t count) __attribute__((always_inline)) { store_up_to<T>(values + j, Vec<T>{}, count); });
}

// Writes sums[j] = the sum of blocks[b][j] over all b, in order. Lanes split the columns.
template <class T>
GRADRING_INLINE void add_blocks(const Lane& lane, const T* blocks, int64_t count, int64_t columns, T* sums) noexcept {
  const Range part = split(lane, columns, 64 / static_cast<int64_t>(sizeof(T)));
  for_vectors<T>(
      part.end - part.begin, [&](int64_t offset, int64_t n) __attribute__((always_inline)) {
        Vec<T> sum{};
        for (int64_t b = 0; b < count; ++b) sum += load_up_to<T>(blocks + b * columns + part.begin + offset, n);
        store_up_to<T>(sums + part.begin + offset, sum, n);
      });
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

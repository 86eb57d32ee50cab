// Reductions across the lanes of one vector, in a fixed (butterfly) order; every lane receives the result.
#pragma once

#include <utility>

#include "ops/math/math.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

template <int Step, class T, int... I>
GRADRING_INLINE Vec<T> exchange(Vec<T> v, std::integer_sequence<int, I...>) noexcept {
  return __builtin_shufflevector(v, v, (I ^ Step)...);
}

template <class T, class Combine>
GRADRING_INLINE Vec<T> butterfly(Vec<T> v, Combine combine) noexcept {
  constexpr std::make_integer_sequence<int, kWidth<T>> lanes;
  if constexpr (kWidth<T> > 8) v = combine(v, exchange<8, T>(v, lanes));
  if constexpr (kWidth<T> > 4) v = combine(v, exchange<4, T>(v, lanes));
  if constexpr (kWidth<T> > 2) v = combine(v, exchange<2, T>(v, lanes));
  if constexpr (kWidth<T> > 1) v = combine(v, exchange<1, T>(v, lanes));
  return v;
}

template <class T>
GRADRING_INLINE Vec<T> sum_of_lanes(Vec<T> v) noexcept {
  return butterfly<T>(v, [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return a + b; });
}

// The largest lane; if a lane is NaN, that lane or another.
template <class T>
GRADRING_INLINE Vec<T> max_of_lanes(Vec<T> v) noexcept {
  return butterfly<T>(v, [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return maximum<T>(a, b); });
}

// 0, 1, 2, ... in integers as wide as T.
template <class T>
GRADRING_INLINE IntVec<T> lane_numbers() noexcept {
  using Int = typename Float<T>::Int;
  constexpr Int numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load<Int>(numbers);
}

// All bits set in the first n lanes.
template <class T>
GRADRING_INLINE IntVec<T> first_lanes(int64_t n) noexcept {
  return lane_numbers<T>() < broadcast_bits<T>(static_cast<typename Float<T>::Int>(n));
}

template <class T>
GRADRING_INLINE bool any_lane(IntVec<T> mask) noexcept {
  int64_t words[sizeof(mask) / 8];
  __builtin_memcpy(words, &mask, sizeof mask);
  int64_t any = 0;
  for (int64_t word : words) any |= word;
  return any != 0;
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

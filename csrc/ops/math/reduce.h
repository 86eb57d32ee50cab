// Horizontal reductions: they combine the elements of one vector, in a fixed (butterfly) order, and every element of the
// result holds the answer.
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
  constexpr std::make_integer_sequence<int, kWidth<T>> elements;
  if constexpr (kWidth<T> > 8) v = combine(v, exchange<8, T>(v, elements));
  if constexpr (kWidth<T> > 4) v = combine(v, exchange<4, T>(v, elements));
  if constexpr (kWidth<T> > 2) v = combine(v, exchange<2, T>(v, elements));
  if constexpr (kWidth<T> > 1) v = combine(v, exchange<1, T>(v, elements));
  return v;
}

template <class T>
GRADRING_INLINE Vec<T> horizontal_sum(Vec<T> v) noexcept {
  return butterfly<T>(v, [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return a + b; });
}

// The largest element. If an element is NaN, the result may be that element or another one.
template <class T>
GRADRING_INLINE Vec<T> horizontal_max(Vec<T> v) noexcept {
  return butterfly<T>(v, [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return maximum<T>(a, b); });
}

// The numbers 0, 1, 2, ..., as integers that are as wide as T.
template <class T>
GRADRING_INLINE IntVec<T> element_numbers() noexcept {
  using Int = typename Float<T>::Int;
  constexpr Int numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load<Int>(numbers);
}

// A mask: all bits are set in the first n elements, and none in the others.
template <class T>
GRADRING_INLINE IntVec<T> first_elements(int64_t n) noexcept {
  return element_numbers<T>() < broadcast_bits<T>(static_cast<typename Float<T>::Int>(n));
}

// Whether the mask has any bit set.
template <class T>
GRADRING_INLINE bool any_element(IntVec<T> mask) noexcept {
  int64_t words[sizeof(mask) / 8];
  __builtin_memcpy(words, &mask, sizeof mask);
  int64_t any = 0;
  for (int64_t word : words) any |= word;
  return any != 0;
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// sum_parts: the end of a matrix product that was summed over its inner dimension in two parts: y =
// activation((first + second) + bias), with the same bits as a product that adds its second part to C.
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

template <class T>
struct SumPartsArguments {
  int64_t rows = 0, columns = 0;  // all arrays contiguous
  const T* first = nullptr;
  const T* second = nullptr;
  const T* bias = nullptr;  // a row, or null
  bool relu = false;
  T* y = nullptr;
};

template <class T>
void sum_parts(const Lane& lane, const SumPartsArguments<T>& arguments) noexcept;

}  // namespace gradring

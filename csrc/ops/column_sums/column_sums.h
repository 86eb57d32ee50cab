// column_sums: sums[j] = sum over rows of x[i, j], in fixed blocks of rows.
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

template <class T>
struct ColumnSumsArguments {
  int64_t rows = 0, columns = 0;
  const T* x = nullptr;
  int64_t ldx = 0;  // the distance between rows, in elements
  T* sums = nullptr;
};

template <class T>
void column_sums(const Lane& lane, const ColumnSumsArguments<T>& arguments) noexcept;

int column_sums_lanes(int64_t rows, int64_t columns, int lanes) noexcept;

}  // namespace gradring

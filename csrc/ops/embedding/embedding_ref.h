// The reference: one id at a time.
#pragma once

#include <cstdint>
#include <vector>

namespace gradring::reference {

template <class T>
std::vector<T> embedding(const std::vector<int64_t>& ids, const std::vector<T>& table, int64_t rows, int64_t columns) {
  std::vector<T> y;
  for (const int64_t id : ids) {
    for (int64_t j = 0; j < columns; ++j) y.push_back(id < 0 || id >= rows ? T(0) : table[size_t(id * columns + j)]);
  }
  return y;
}

// Returns dtable, and in `sizes` the sums of its terms' absolute values.
template <class T>
std::vector<double> embedding_vjp(const std::vector<int64_t>& ids, const std::vector<T>& dy, int64_t rows,
                                  int64_t columns, std::vector<double>* sizes) {
  std::vector<double> dtable(static_cast<size_t>(rows * columns));
  *sizes = dtable;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= rows) continue;
    for (int64_t j = 0; j < columns; ++j) {
      const double term = double(dy[i * size_t(columns) + size_t(j)]);
      dtable[size_t(ids[i] * columns + j)] += term;
      (*sizes)[size_t(ids[i] * columns + j)] += term < 0 ? -term : term;
    }
  }
  return dtable;
}

}  // namespace gradring::reference

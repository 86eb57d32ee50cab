// embedding: y[i] = table[ids[i]], and the gradient of the table.
//
// An id outside the table is read as a row of zeros, adds to no gradient, and is reported: `fault` receives the position
// of the first one, or -1.
#pragma once

#include <cstdint>

#include "ops/work.h"

namespace gradring {

// Row numbers, int32 or int64.
struct Ids {
  const void* data = nullptr;
  bool wide = true;  // int64

  int64_t operator[](int64_t i) const noexcept {
    return wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

// Rows are copied as bytes, so their dtype does not matter.
struct EmbeddingArguments {
  int64_t count = 0;      // how many ids there are
  int64_t rows = 0;       // how many rows the table has
  int64_t row_bytes = 0;  // the size of a row
  Ids ids;
  const void* table = nullptr;
  void* y = nullptr;  // (count, row_bytes)
  int64_t* fault = nullptr;
};

// dtable[r] = the sum of dy[i] over all i with ids[i] = r, in the order of i: in blocks of 32 terms, whose sums are added
// in order. The positions are sorted by row first (a counting sort), so each row of dtable is written once and each row of
// dy is read once.
template <class T>
struct EmbeddingVjpArguments {
  int64_t count = 0, rows = 0, columns = 0;
  Ids ids;
  const T* dy = nullptr;
  T* dtable = nullptr;  // (rows, columns)
  int64_t* fault = nullptr;
};

void embedding(const Lane& lane, const EmbeddingArguments& arguments) noexcept;
template <class T>
void embedding_vjp(const Lane& lane, const EmbeddingVjpArguments<T>& arguments) noexcept;

int embedding_lanes(int64_t count, int64_t row_bytes, int lanes) noexcept;
int embedding_vjp_lanes(int64_t count, int64_t rows, int64_t row_bytes, int lanes) noexcept;
// The scratch memory of the vjp: the ids, their positions in the order of the rows, and where each row's positions begin.
ScratchBytes embedding_vjp_scratch(int64_t count, int64_t rows) noexcept;

}  // namespace gradring

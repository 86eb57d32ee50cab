#include "ops/embedding/embedding.h"

#include <algorithm>
#include <cstring>

#include "ops/embedding/kernels.h"

namespace gradring {

GRADRING_DEFINE_OP(embedding_vjp, EmbeddingVjpArguments, embedding_vjp_kernel)

void embedding(const Lane& lane, const EmbeddingArguments& g) noexcept {
  const Range mine = split(lane, g.count, 8);
  const auto size = static_cast<size_t>(g.row_bytes);
  // A table whose rows have no elements may have no address, so touch nothing if size is 0.
  for (int64_t i = mine.begin; size > 0 && i < mine.end; ++i) {
    const int64_t row = g.ids[i];
    std::byte* const y = static_cast<std::byte*>(g.y) + i * g.row_bytes;
    if (row < 0 || row >= g.rows) {
      std::memset(y, 0, size);
    } else {
      std::memcpy(y, static_cast<const std::byte*>(g.table) + row * g.row_bytes, size);
    }
  }
  if (!g.fault || lane.index != 0) return;
  int64_t first = 0;
  while (first < g.count && g.ids[first] >= 0 && g.ids[first] < g.rows) ++first;
  *g.fault = first < g.count ? first : -1;
}

int embedding_lanes(int64_t count, int64_t row_bytes, int lanes) noexcept {
  return lanes_worth(static_cast<double>(count) * (4 + 0.08 * static_cast<double>(row_bytes)), lanes);
}

int embedding_vjp_lanes(int64_t count, int64_t rows, int64_t row_bytes, int lanes) noexcept {
  const double lines = static_cast<double>(row_bytes) / 64;
  const double nanoseconds = static_cast<double>(count + rows) * lines * 4;
  return lanes_worth(nanoseconds, std::min(lanes, std::max(1, static_cast<int>(std::min(lines, 256.0)))));
}

ScratchBytes embedding_vjp_scratch(int64_t count, int64_t rows) noexcept {
  return {0, sizeof(int64_t) * (2 * static_cast<size_t>(count) + static_cast<size_t>(rows) + 1)};
}

}  // namespace gradring

// What an op declares about a call before it runs: the scratch memory that it needs, and how many lanes are worth waking.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/lane.h"

namespace gradring {

struct ScratchBytes {
  size_t per_lane = 0;
  size_t shared = 0;
};

// Waking a lane and waiting for it costs about as much time as this.
inline constexpr double kNanosecondsWorthALane = 4000;

inline int lanes_worth(double nanoseconds, int lanes) noexcept {
  const double worth = nanoseconds / kNanosecondsWorthALane;
  return worth >= lanes ? lanes : worth < 2 ? 1 : static_cast<int>(worth);
}

// The grain in which memory-bound work on a flat array is divided among lanes. No two lanes share a cache line, and which elements
// are in the partial vector at the end depends only on n.
inline constexpr int64_t kFlatGrain = 1024;

// Applies the gradient of a matrix parameter one tile at a time (matmul's TileConsumer): the tile's first
// element is (row, column) of the matrix, and its rows are ld elements apart.
template <class T>
using TileUpdate = void (*)(const void* context, int64_t row, int64_t rows, int64_t column, int64_t columns,
                            const T* tile, int64_t ld) noexcept;

}  // namespace gradring

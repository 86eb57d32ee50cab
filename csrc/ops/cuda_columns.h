// Sums over the rows of a matrix, column by column. A block takes 32 columns and a group of rows; the groups' sums are then
// added in their order. What is a group depends on the shape alone.
#pragma once

#include "ops/cuda_call.h"

namespace gradring {

inline constexpr int kColumnsPerBlock = 32;
inline constexpr int kRowLanes = device::kElementThreads / kColumnsPerBlock;

struct ColumnPlan {
  int64_t rows = 0, columns = 0, group_rows = 256, groups = 1;

  ColumnPlan(int64_t r, int64_t c) noexcept : rows(r), columns(c) {
    constexpr int64_t kMostGroups = 512;
    if (rows > group_rows * kMostGroups) group_rows = (rows + kMostGroups - 1) / kMostGroups;
    groups = rows > 0 ? (rows + group_rows - 1) / group_rows : 1;
  }
  int64_t tiles() const noexcept { return (columns + kColumnsPerBlock - 1) / kColumnsPerBlock; }
};

// A thread's place in its block. Blocks are persistent: they take tiles of columns and groups of rows in turn.
struct ColumnPlace {
  int64_t column;
  int lane;  // of the rows
  bool inside;

  __device__ ColumnPlace(int64_t tile, int64_t columns)
      : column(tile * kColumnsPerBlock + threadIdx.x % kColumnsPerBlock),
        lane(static_cast<int>(threadIdx.x) / kColumnsPerBlock),
        inside(column < columns) {}
};

// sums[k] = the sum over rows [begin, end) of value k that term(row, values) gives, in all threads of the column. shared: kSums
// times kElementThreads numbers. All threads of the block must call it.
template <int kSums, class W, class F>
__device__ __forceinline__ void sum_group(const ColumnPlace& place, int64_t begin, int64_t end, W* shared,
                                          const F& term, W (&sums)[kSums]) {
  GRADRING_UNROLL
  for (int k = 0; k < kSums; ++k) sums[k] = 0;
  if (place.inside) {
    int64_t row = begin + place.lane;
    for (; row + 3 * kRowLanes < end; row += 4 * kRowLanes) {
      W values[4][kSums];
      GRADRING_UNROLL
      for (int u = 0; u < 4; ++u) term(row + u * kRowLanes, values[u]);
      GRADRING_UNROLL
      for (int k = 0; k < kSums; ++k) sums[k] += (values[0][k] + values[1][k]) + (values[2][k] + values[3][k]);
    }
    for (; row < end; row += kRowLanes) {
      W values[kSums];
      term(row, values);
      GRADRING_UNROLL
      for (int k = 0; k < kSums; ++k) sums[k] += values[k];
    }
  }
  GRADRING_UNROLL
  for (int k = 0; k < kSums; ++k) shared[k * device::kElementThreads + static_cast<int>(threadIdx.x)] = sums[k];
  __syncthreads();
  GRADRING_UNROLL
  for (int k = 0; k < kSums; ++k) {
    sums[k] = 0;
    for (int lane = 0; lane < kRowLanes; ++lane) {
      sums[k] += shared[k * device::kElementThreads + lane * kColumnsPerBlock +
                        static_cast<int>(threadIdx.x) % kColumnsPerBlock];
    }
  }
  __syncthreads();
}

inline unsigned column_blocks(const ColumnPlan& plan, int processors) noexcept {
  const int64_t wanted = plan.tiles() * plan.groups, most = int64_t{8} * (processors > 0 ? processors : 1);
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

// body(place, group, begin, end) for each of a block's tiles and groups.
template <class F>
__device__ __forceinline__ void for_column_groups(const ColumnPlan& plan, const F& body) {
  const int64_t tiles = (plan.columns + kColumnsPerBlock - 1) / kColumnsPerBlock;
  for (int64_t piece = blockIdx.x; piece < tiles * plan.groups; piece += gridDim.x) {
    const int64_t group = piece / tiles, begin = group * plan.group_rows;
    const int64_t end = begin + plan.group_rows < plan.rows ? begin + plan.group_rows : plan.rows;
    body(ColumnPlace(piece % tiles, plan.columns), group, begin, end);
  }
}

}  // namespace gradring

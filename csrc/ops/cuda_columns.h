// Sums over the rows of a matrix, column by column. A block takes 32 columns and a group of rows; the groups' sums are then
// added in order. The shape alone decides which rows form a group.
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

// A thread's place in its block. Blocks are persistent: each works on one tile of columns and group of rows after
// another.
struct ColumnPlace {
  int64_t column;
  int lane;  // The threads that share a column split its rows. This is the thread's number among them.
  bool inside;

  __device__ ColumnPlace(int64_t tile, int64_t columns)
      : column(tile * kColumnsPerBlock + threadIdx.x % kColumnsPerBlock),
        lane(static_cast<int>(threadIdx.x) / kColumnsPerBlock),
        inside(column < columns) {}
};

// Sets sums[k], in all threads of the column, to the sum over rows [begin, end) of values[k] from term(row, values). `shared`
// has kSums times kElementThreads numbers. All threads of the block must call it.
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

// Calls body(place, group, begin, end) for each tile and group of this block.
template <class F>
__device__ __forceinline__ void for_column_groups(const ColumnPlan& plan, const F& body) {
  const int64_t tiles = (plan.columns + kColumnsPerBlock - 1) / kColumnsPerBlock;
  for (int64_t piece = blockIdx.x; piece < tiles * plan.groups; piece += gridDim.x) {
    const int64_t group = piece / tiles, begin = group * plan.group_rows;
    const int64_t end = begin + plan.group_rows < plan.rows ? begin + plan.group_rows : plan.rows;
    body(ColumnPlace(piece % tiles, plan.columns), group, begin, end);
  }
}

template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    column_groups_kernel(const StepRecord* step, ColumnPlan plan, const T* x, device::Wide<T>* groups) {
  using W = device::Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(W, shared, device::kElementThreads);
  for_column_groups(plan, [&](const ColumnPlace& place, int64_t group, int64_t begin, int64_t end) {
    W sums[1];
    const auto term = [&](int64_t row, W* v) { v[0] = device::widen(x[row * plan.columns + place.column]); };
    sum_group<1>(place, begin, end, shared, term, sums);
    if (place.inside && place.lane == 0) groups[group * plan.columns + place.column] = sums[0];
  });
}

template <class W, class S>
__global__ void __launch_bounds__(device::kElementThreads)
    add_groups_kernel(const StepRecord* step, ColumnPlan plan, const W* groups, S* sums) {
  if (stopped(step)) return;
  add_rows(groups, plan.groups, plan.columns, plan.columns, sums);
}

template <class T>
size_t column_sums_bytes(int64_t rows, int64_t columns) noexcept {
  const ColumnPlan plan(rows, columns);
  return static_cast<size_t>(plan.groups * plan.columns) * sizeof(device::Wide<T>);
}

// Sets sums[j] to the sum of column j of a dense x. `scratch` has column_sums_bytes.
template <class T, class S>
int queue_column_sums(const OpCall& call, const CudaQueue& queue, int64_t rows, int64_t columns, const T* x, S* sums,
                      void* scratch) noexcept {
  const ColumnPlan plan(rows, columns);
  if (plan.columns == 0) return 0;
  const StepRecord* step = call.step;
  auto* const groups = static_cast<device::Wide<T>*>(scratch);
  const dim3 threads(device::kElementThreads);
  const int code = LAUNCH(column_groups_kernel<T>, dim3(column_blocks(plan, queue.processors)), threads, 0,
                          stream_of(queue), step, plan, x, groups);
  if (code != 0) return code;
  return LAUNCH((add_groups_kernel<device::Wide<T>, S>), dim3(blocks_for(plan.columns, queue.processors)), threads, 0,
                stream_of(queue), step, plan, groups, sums);
}

}  // namespace gradring

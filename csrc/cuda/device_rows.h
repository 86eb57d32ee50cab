// Rows of a matrix, each the work of a warp (short rows) or of a block. Blocks are persistent: each handles one row after
// another, so only the shape and the number of blocks decide what a team adds up. device.h includes this.
#pragma once

namespace gradring::device {

inline constexpr int kWarpsPerBlock = kElementThreads / 32;
inline constexpr int kMostRowThreads = 512;  // so that a thread may have 128 registers
// A warp handles rows of up to this many columns. The column sums of a block's warps then fit into 32 KiB.
template <class T>
inline constexpr int kWarpColumns = 4096 / static_cast<int>(sizeof(Wide<T>));
// Rows of up to this many bytes are kept in shared memory.
inline constexpr size_t kCachedBytes = 99 << 10;

struct RowPlan {
  bool block = false, cached = false;
  unsigned blocks = 1, threads = kElementThreads;
  size_t shared = 0;
};

// `sums` is the number of sums per column. `caches` says whether the kernel keeps its row in shared memory.
template <class T>
RowPlan row_plan(int64_t rows, int64_t columns, int processors, int sums, bool caches) {
  RowPlan plan;
  plan.block = columns > kWarpColumns<T>;
  const int64_t teams = plan.block ? rows : (rows + kWarpsPerBlock - 1) / kWarpsPerBlock;
  const int64_t most = int64_t{processors > 0 ? processors : 1} * (sums > 0 ? 1 : 8);
  plan.blocks = static_cast<unsigned>(teams < 1 ? 1 : teams < most ? teams : most);
  if (!plan.block) {
    plan.shared = static_cast<size_t>(sums) * kWarpsPerBlock * static_cast<size_t>(columns) * sizeof(Wide<T>);
    return plan;
  }
  if (columns > 16384 && kElementThreads == 256) plan.threads = kMostRowThreads;
  const size_t row = static_cast<size_t>(columns) * sizeof(T) + 16;
  plan.cached = caches && row <= kCachedBytes;
  if (plan.cached) plan.shared = row;
  return plan;
}

// A kernel must request more than 48 KiB of dynamic shared memory before its launch.
template <class... P>
cudaError_t allow_shared(void (*kernel)(P...), size_t bytes) {
  if (bytes <= (48u << 10)) return cudaSuccess;
  return cuda::noted("cudaFuncSetAttribute",
                     cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

template <bool kBlock>
struct RowTeam {
  int me, all;
  int64_t first, step;  // rows

  __device__ RowTeam()
      : me(kBlock ? static_cast<int>(threadIdx.x) : lane_in_warp()),
        all(kBlock ? static_cast<int>(blockDim.x) : 32),
        first(kBlock ? blockIdx.x : static_cast<int64_t>(blockIdx.x) * warps_in_block() + warp_in_block()),
        step(kBlock ? gridDim.x : static_cast<int64_t>(gridDim.x) * warps_in_block()) {}

  // For blocks, `parts` is shared memory for kMostWarps values.
  template <class T, class Combine>
  __device__ __forceinline__ T reduce(T value, T* parts, Combine combine) const {
    if constexpr (kBlock) {
      return block_reduce(value, parts, combine);
    } else {
      return warp_reduce(value, combine);
    }
  }
  __device__ __forceinline__ bool any(bool mine) const {
    if constexpr (kBlock) {
      return __syncthreads_or(mine) != 0;
    } else {
      return __any_sync(kWholeWarp, mine) != 0;
    }
  }
  __device__ __forceinline__ void sync() const {
    if constexpr (kBlock) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }
};

// Sums over rows, kSums for each column, which a team adds to as it passes over its rows. finish writes a block's sums to a
// row of `blocks`, and add_blocks then adds up the rows in order. Warps keep their sums in shared memory, and a team that is a
// whole block keeps them in its row of `blocks`.
template <bool kBlock, int kSums, class W>
struct TeamSums {
  W* mine;
  W* block;
  int columns;

  // `blocks` has the shape (gridDim.x, kSums, columns). `shared` is the dynamic shared memory, for warps.
  __device__ TeamSums(const RowTeam<kBlock>& team, W* blocks, W* shared, int count) : columns(count) {
    block = blocks + static_cast<int64_t>(blockIdx.x) * kSums * columns;
    mine = kBlock ? block : shared + warp_in_block() * kSums * columns;
    for (int j = team.me; j < kSums * columns; j += team.all) mine[j] = 0;
    team.sync();
  }
  __device__ __forceinline__ void add(int which, int column, W value) const { mine[which * columns + column] += value; }
  // Call this when the team has passed over all its rows.
  __device__ void finish() const {
    if constexpr (!kBlock) {
      __syncthreads();
      for (int j = static_cast<int>(threadIdx.x); j < kSums * columns; j += static_cast<int>(blockDim.x)) {
        W sum = 0;
        for (int warp = 0; warp < warps_in_block(); ++warp) sum += mine[j + (warp - warp_in_block()) * kSums * columns];
        block[j] = sum;
      }
    }
  }
};

}  // namespace gradring::device

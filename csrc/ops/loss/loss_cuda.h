// What the losses' CUDA kernels share: the totals that a team of threads records of its rows, and the kernel that adds up all
// teams' totals, in a fixed order.
#pragma once

#include "ops/cuda_call.h"
#include "ops/loss/loss.h"
#include "ops/math/math.h"

namespace gradring {

// The weights of so many rows are added by one block of threads.
inline constexpr int64_t kWeightBlock = 4096;
inline int64_t weight_blocks(int64_t rows) noexcept { return (rows + kWeightBlock - 1) / kWeightBlock; }

// The scratch memory of a call: the teams' totals; if the gradient is divided by the sum of the weights, that sum and what
// blocks add to it; then the blocks' column sums.
template <class T>
struct LossScratch {
  LossTotals* totals = nullptr;
  double* weights = nullptr;  // null: the gradient is not divided
  device::Wide<T>* sums = nullptr;
  int teams = 0;

  static size_t totals_bytes(const device::RowPlan& plan) noexcept {
    return static_cast<size_t>(plan.blocks) * device::kMostWarps * sizeof(LossTotals);
  }
  static size_t weights_bytes(int64_t rows, bool divide) noexcept {
    return divide ? static_cast<size_t>(1 + weight_blocks(rows)) * sizeof(double) : 0;
  }
  static size_t bytes(const device::RowPlan& plan, int64_t rows, int64_t columns, bool column_sums,
                      bool divide) noexcept {
    return totals_bytes(plan) + weights_bytes(rows, divide) +
           (column_sums ? plan.blocks * static_cast<size_t>(columns) * sizeof(device::Wide<T>) : 0);
  }
  LossScratch() = default;
  LossScratch(const device::RowPlan& plan, int64_t rows, bool divide, void* scratch) noexcept
      : totals(static_cast<LossTotals*>(scratch)),
        teams(static_cast<int>(plan.blocks) * (plan.block ? 1 : device::kWarpsPerBlock)) {
    char* const behind = static_cast<char*>(scratch) + totals_bytes(plan);
    if (divide) weights = reinterpret_cast<double*>(behind);
    sums = reinterpret_cast<device::Wide<T>*>(behind + weights_bytes(rows, divide));
  }
};

__device__ __forceinline__ int64_t first_of(int64_t row, int64_t other) {
  return row < 0 || (other >= 0 && other < row) ? other : row;
}

__device__ __forceinline__ void add_totals(LossTotals* sum, const LossTotals& more) {
  sum->loss += more.loss;
  sum->correct += more.correct;
  sum->bad_row = first_of(sum->bad_row, more.bad_row);
  sum->weight += more.weight;
  sum->bad_weight = first_of(sum->bad_weight, more.bad_weight);
}

// Adds a row's weight in the mean to the totals.
template <class W>
__device__ __forceinline__ void note_weight(LossTotals* totals, int64_t row, W weight) {
  totals->weight += static_cast<double>(weight);
  if (!(weight >= W(0) && weight < device::Float<W>::kInfinity) && totals->bad_weight < 0) totals->bad_weight = row;
}

// A team's totals, by its first thread.
template <bool kBlock>
__device__ __forceinline__ void store_totals(const device::RowTeam<kBlock>& team, LossTotals* all,
                                             const LossTotals& totals) {
  if (team.me != 0) return;
  const auto warps = static_cast<unsigned>(device::warps_in_block());
  all[kBlock ? blockIdx.x : blockIdx.x * warps + static_cast<unsigned>(device::warp_in_block())] = totals;
}

// What the gradients are multiplied by; a batch without weight has none.
template <class T>
__device__ __forceinline__ device::Wide<T> whole_scale(T scale, const double* weight) {
  using W = device::Wide<T>;
  if (!weight) return device::widen(scale);
  return *weight == 0 ? W(0) : static_cast<W>(static_cast<double>(device::widen(scale)) / *weight);
}

// sums[1 + b]: the sum of weight_of over block b of the rows.
template <class F>
__global__ void __launch_bounds__(device::kElementThreads)
    weights_kernel(const StepRecord* step, int64_t rows, int64_t blocks, F weight_of, double* sums) {
  if (stopped(step)) return;
  SHARED_ARRAY(double, parts, device::kMostWarps);
  for (int64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    const int64_t end = (b + 1) * kWeightBlock < rows ? (b + 1) * kWeightBlock : rows;
    double sum = 0;
    for (int64_t row = b * kWeightBlock + threadIdx.x; row < end; row += blockDim.x) {
      sum += static_cast<double>(weight_of(row));
    }
    sum = device::block_reduce(sum, parts, device::Plus{});
    if (threadIdx.x == 0) sums[1 + b] = sum;
  }
}

// sums[0]: the sum of the blocks' sums. One block of threads.
template <class Sum>
__global__ void __launch_bounds__(device::kElementThreads)
    add_weights_kernel(const StepRecord* step, int64_t blocks, Sum* sums) {
  if (stopped(step)) return;
  SHARED_ARRAY(Sum, parts, device::kMostWarps);
  Sum sum = 0;
  for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) sum += sums[1 + b];
  sum = device::block_reduce(sum, parts, device::Plus{});
  if (threadIdx.x == 0) sums[0] = sum;
}

// If the gradient is divided by the sum of the rows' weights, queues that sum.
template <class F>
int queue_weights(const OpCall& call, const CudaQueue& queue, int64_t rows, const F& weight_of, double* sums) noexcept {
  if (!sums) return 0;
  const int64_t blocks = weight_blocks(rows), most = int64_t{8} * queue.processors;
  const StepRecord* step = call.step;
  if (blocks > 0) {
    const int code = LAUNCH((weights_kernel<F>), dim3(static_cast<unsigned>(blocks < most ? blocks : most)),
                            dim3(device::kElementThreads), 0, stream_of(queue), step, rows, blocks, weight_of, sums);
    if (code != 0) return code;
  }
  return LAUNCH(add_weights_kernel<double>, dim3(1), dim3(device::kElementThreads), 0, stream_of(queue), step, blocks,
                sums);
}

// The first block adds up the totals: each thread adds those of some teams, and one thread then adds the threads' sums.
template <class T>
__global__ void __launch_bounds__(device::kElementThreads)
    finish_loss_kernel(const StepRecord* step, LossScratch<T> scratch, int64_t blocks, int64_t columns, T* column_sums,
                       LossTotals* totals) {
  if (stopped(step)) return;
  if (column_sums) add_rows(scratch.sums, blocks, columns, columns, column_sums);
  if (blockIdx.x != 0 || !totals) return;
  SHARED_ARRAY(double, loss, device::kElementThreads);
  SHARED_ARRAY(int64_t, correct, device::kElementThreads);
  SHARED_ARRAY(int64_t, bad, device::kElementThreads);
  SHARED_ARRAY(double, weight, device::kElementThreads);
  SHARED_ARRAY(int64_t, bad_weight, device::kElementThreads);
  LossTotals mine;
  const int me = static_cast<int>(threadIdx.x);
  for (int team = me; team < scratch.teams; team += device::kElementThreads) add_totals(&mine, scratch.totals[team]);
  loss[me] = mine.loss, correct[me] = mine.correct, bad[me] = mine.bad_row;
  weight[me] = mine.weight, bad_weight[me] = mine.bad_weight;
  __syncthreads();
  if (me != 0) return;
  LossTotals all;
  for (int k = 0; k < device::kElementThreads; ++k) {
    LossTotals part;
    part.loss = loss[k], part.correct = correct[k], part.bad_row = bad[k];
    part.weight = weight[k], part.bad_weight = bad_weight[k];
    add_totals(&all, part);
  }
  *totals = all;
}

template <class T>
int finish_loss(const OpCall& call, const CudaQueue& queue, const device::RowPlan& plan, int64_t columns,
                const LossScratch<T>& scratch, T* column_sums, LossTotals* totals) noexcept {
  if (!column_sums && !totals) return 0;
  const StepRecord* step = call.step;
  const unsigned blocks = column_sums ? blocks_for(columns, queue.processors) : 1;
  return LAUNCH((finish_loss_kernel<T>), dim3(blocks), dim3(device::kElementThreads), 0, stream_of(queue), step,
                scratch, static_cast<int64_t>(plan.blocks), columns, column_sums, totals);
}

inline bool cuda_divides(const OpCall& call, bool weighted) noexcept {
  return weighted && integer(call, "reduction") == 1;  // the mean
}

// Returns the same as loss_scale in loss/call.h.
inline double cuda_loss_scale(const OpCall& call, int64_t rows, int64_t columns, bool weighted) noexcept {
  const double scale = real(call, "scale", 1);
  switch (integer(call, "reduction")) {
    case 1: return weighted ? scale : scale / static_cast<double>(rows);
    case 2: return scale * static_cast<double>(columns);
    default: return scale;
  }
}

}  // namespace gradring

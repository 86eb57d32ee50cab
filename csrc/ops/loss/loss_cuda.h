// What the losses' CUDA kernels share: the totals that a team of threads records of its rows, and the kernel that adds up all
// teams' totals, in a fixed order.
#pragma once

#include "ops/cuda_call.h"
#include "ops/loss/loss.h"

namespace gradring {

// The scratch memory of a call: the teams' totals, then the blocks' column sums.
template <class T>
struct LossScratch {
  LossTotals* totals = nullptr;
  device::Wide<T>* sums = nullptr;
  int teams = 0;

  static size_t totals_bytes(const device::RowPlan& plan) noexcept {
    return static_cast<size_t>(plan.blocks) * device::kMostWarps * sizeof(LossTotals);
  }
  static size_t bytes(const device::RowPlan& plan, int64_t columns, bool column_sums) noexcept {
    return totals_bytes(plan) +
           (column_sums ? plan.blocks * static_cast<size_t>(columns) * sizeof(device::Wide<T>) : 0);
  }
  LossScratch() = default;
  LossScratch(const device::RowPlan& plan, void* scratch) noexcept
      : totals(static_cast<LossTotals*>(scratch)),
        sums(reinterpret_cast<device::Wide<T>*>(static_cast<char*>(scratch) + totals_bytes(plan))),
        teams(static_cast<int>(plan.blocks) * (plan.block ? 1 : device::kWarpsPerBlock)) {}
};

__device__ __forceinline__ void add_totals(LossTotals* sum, const LossTotals& more) {
  sum->loss += more.loss;
  sum->correct += more.correct;
  if (more.bad_row >= 0 && (sum->bad_row < 0 || more.bad_row < sum->bad_row)) sum->bad_row = more.bad_row;
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
  LossTotals mine;
  const int me = static_cast<int>(threadIdx.x);
  for (int team = me; team < scratch.teams; team += device::kElementThreads) add_totals(&mine, scratch.totals[team]);
  loss[me] = mine.loss, correct[me] = mine.correct, bad[me] = mine.bad_row;
  __syncthreads();
  if (me != 0) return;
  LossTotals all;
  for (int k = 0; k < device::kElementThreads; ++k) {
    LossTotals part;
    part.loss = loss[k], part.correct = correct[k], part.bad_row = bad[k];
    add_totals(&all, part);
  }
  *totals = all;
}

template <class T>
int finish_loss(const OpCall& call, const CudaQueue& queue, const device::RowPlan& plan, int64_t columns,
                T* column_sums, LossTotals* totals) noexcept {
  if (!column_sums && !totals) return 0;
  const LossScratch<T> scratch(plan, queue.scratch);
  const StepRecord* step = call.step;
  const unsigned blocks = column_sums ? blocks_for(columns, queue.processors) : 1;
  return LAUNCH((finish_loss_kernel<T>), dim3(blocks), dim3(device::kElementThreads), 0, stream_of(queue), step,
                scratch, static_cast<int64_t>(plan.blocks), columns, column_sums, totals);
}

// Returns the same as loss_scale in loss/call.h.
inline double cuda_loss_scale(const OpCall& call, int64_t rows, int64_t columns) noexcept {
  const double scale = real(call, "scale", 1);
  const int64_t reduction = integer(call, "reduction");
  return reduction == 1   ? scale / static_cast<double>(rows)
         : reduction == 2 ? scale * static_cast<double>(columns)
                          : scale;
}

}  // namespace gradring

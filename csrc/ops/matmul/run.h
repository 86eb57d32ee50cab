// The entry points of one element type: they choose a method for the shape and add up column sums. Each element type
// has a translation unit (matmul_f32_cpu.cc, matmul_f64_cpu.cc), because one unit for both takes twice as long to
// compile.
#pragma once

#include "ops/matmul/blocked.h"
#include "ops/matmul/dots.h"
#include "ops/matmul/flipped.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/matmul/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The choice depends only on the shape, and never on the number of lanes, because each method sums in another order.
enum class Way { kBlocked, kRow, kDots, kFlipped };

template <class T>
Way way_of(const MatmulArguments<T>& g) noexcept {
  if (g.k <= 0) return Way::kBlocked;
  if (is_flipped(g)) return Way::kFlipped;
  if (short_by_dots(g) || narrow_by_dots(g)) return Way::kDots;
  if (g.m == 1 && !g.trans_b) return Way::kRow;
  return Way::kBlocked;
}

// How many blocks of rows there are; the column sums of each are added up first.
template <class T>
int64_t sum_blocks(const MatmulArguments<T>& g) noexcept {
  switch (way_of(g)) {
    case Way::kRow: return 1;
    case Way::kDots: return divide_up(g.m, kDotRows);
    case Way::kFlipped: return flipped_panels(g);
    default: return make_plan(g, 1).row_tiles;
  }
}

template <class T>
ScratchBytes run_scratch(const MatmulArguments<T>& g, int) noexcept {
  if (g.m <= 0 || g.n <= 0) return {};
  ScratchBytes bytes;
  switch (way_of(g)) {
    case Way::kRow: break;
    case Way::kFlipped: bytes.per_lane = flipped_scratch(g); break;
    case Way::kDots: bytes.per_lane = dots_scratch(g); break;
    default: bytes.per_lane = blocked_scratch(g);
  }
  if (g.epilogue.column_sums) bytes.shared = static_cast<size_t>(sum_blocks(g) * g.n) * sizeof(T);
  return bytes;
}

template <class T>
int run_lanes(const MatmulArguments<T>& g, int available) noexcept {
  // Each `worth` multiply-adds, which take a few microseconds, justify another lane. A product with a single row is limited by
  // the memory that holds B.
  const double worth = (g.m == 1 ? 40000.0 : 131072.0) * (sizeof(T) == 4 ? 1.0 : 0.5);
  const double most = double(g.m) * double(g.n) * double(g.k) / worth;
  return most >= available ? available : most < 2 ? 1 : static_cast<int>(most);
}

// Adds the blocks' sums in order.
template <class T>
void add_sums(const Lane& lane, const MatmulArguments<T>& g, const T* partial, int64_t blocks) noexcept {
  const Range columns = split(lane, g.n, kWidth<T>);
  for (int64_t j = columns.begin; j < columns.end; j += kWidth<T>) {
    const Tail<T> tail(smaller(kWidth<T>, g.n - j));
    Vec<T> sum = tail.load(partial + j);
    for (int64_t block = 1; block < blocks; ++block) sum += tail.load(partial + block * g.n + j);
    tail.store(g.epilogue.column_sums + j, sum);
  }
}

template <class T>
void run_matmul(const Lane& lane, const MatmulArguments<T>& g) noexcept {
  T* const out_sums = g.epilogue.column_sums;
  if (g.m <= 0 || g.n <= 0) {
    if (out_sums && lane.index == 0)
      for (int64_t j = 0; j < g.n; ++j) out_sums[j] = 0;
    return;
  }
  T* const partial = out_sums ? reinterpret_cast<T*>(lane.shared_scratch()) : nullptr;
  switch (way_of(g)) {
    case Way::kRow: run_row(lane, g, partial); break;
    case Way::kDots: run_dots(lane, g, partial); break;
    case Way::kFlipped: run_flipped(lane, g, partial); break;
    default: run_blocked(lane, g, partial);
  }
  if (!partial) return;
  lane.barrier();
  add_sums(lane, g, partial, sum_blocks(g));
}

template <class T>
MatmulBlocks matmul_blocks() noexcept {
  constexpr int64_t kSteps = kMaxSteps / static_cast<int64_t>(sizeof(T));
  return {kTileRows, kTileColumns<T>, block_tiles_of<T>(kSteps) * kTileRows, kMaxVectors * kWidth<T>, kSteps};
}

template <class T>
inline constexpr MatmulKernels<T> kMatmulKernels = {run_matmul<T>, run_scratch<T>, run_lanes<T>, matmul_blocks<T>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#include "ops/bf16_matmul/converted.h"
#include "ops/bf16_matmul/few_rows.h"
#include "ops/bf16_matmul/kernels.h"
#include "ops/bf16_matmul/tiled.h"
#include "ops/bf16_matmul/widened.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// How many blocks of rows there are; the column sums of each are added up first. With converted operands, each row is one.
int64_t sum_blocks(const Bf16MatmulArguments& g, bool tiles) noexcept {
  if (has_few_rows(g)) return 1;
  if (tiles) return tiled_sum_blocks(g);
  return is_small(g) ? g.m : widened_plan(g).row_tiles;
}

ScratchBytes scratch(const Bf16MatmulArguments& g, bool tiles) noexcept {
  ScratchBytes bytes;
  bytes.per_lane = has_few_rows(g) ? few_rows_scratch(g)
                   : tiles         ? tiled_scratch(g)
                   : is_small(g)   ? converted_scratch(g)
                                   : widened_scratch(g);
  if (g.column_sums) bytes.shared = static_cast<size_t>(sum_blocks(g, tiles) * g.n) * sizeof(float);
  return bytes;
}

// Adds the blocks' sums in order.
void add_sums(const Lane& lane, const Bf16MatmulArguments& g, const float* partial, int64_t blocks) noexcept {
  constexpr int64_t W = kWidth<float>;
  const Range columns = split(lane, g.n, 2 * W);
  for (int64_t j = columns.begin; j < columns.end; j += W) {
    const int64_t count = smaller(columns.end - j, W);
    Vec<float> sum = load_partial(partial + j, count);
    for (int64_t block = 1; block < blocks; ++block) sum += load_partial(partial + block * g.n + j, count);
    if (g.column_sums.half) {
      store_narrow(static_cast<Bfloat*>(g.column_sums.data) + j, sum, count, g.float16);
    } else {
      store_partial(static_cast<float*>(g.column_sums.data) + j, sum, count);
    }
  }
}

void run(const Lane& lane, const Bf16MatmulArguments& g, const TileFunctions* tiles) noexcept {
  if (g.m <= 0 || g.n <= 0) {
    if (!g.column_sums || lane.index != 0) return;
    const int64_t item = g.column_sums.half ? 2 : 4;  // zero is zero in both
    __builtin_memset(g.column_sums.data, 0, static_cast<size_t>(g.n > 0 ? g.n * item : 0));
    return;
  }
  float* const partial = g.column_sums ? reinterpret_cast<float*>(lane.shared_scratch()) : nullptr;
  if (has_few_rows(g)) {
    run_few_rows(lane, g, partial);
  } else if (tiles) {
    run_tiled(lane, g, *tiles, partial);
  } else if (is_small(g)) {
    run_converted(lane, g, partial);
  } else {
    run_widened(lane, g, partial);
  }
  if (!partial) return;
  lane.barrier();
  add_sums(lane, g, partial, sum_blocks(g, tiles != nullptr));
}

}  // namespace

extern const Bf16MatmulKernels bf16_matmul_kernels;
const Bf16MatmulKernels bf16_matmul_kernels = {
    run, scratch, kTileRows, kPanelColumns, widened_block_tiles(kWidenedSteps) * kTileRows, kWidenedSteps};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// The product on any processor: blocks of A and B are converted to float32 while they are packed, and the micro-kernel of the
// float32 product multiplies them. Lanes share nothing: each computes a rectangle of C from its own packed copies.
#pragma once

#include "ops/bf16_matmul/deliver.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kWidenedSteps = 1024;     // the most steps of k in a block
inline constexpr int64_t kWidenedBytes = 1 << 19;  // the most bytes of a packed block of A
inline constexpr int64_t kWidenedPanels = 8;       // the most panels in a block of columns, if k has several blocks
inline constexpr int64_t kPanelColumns = kTileColumns<float>;  // the columns of a panel

// How a product is cut. The boundaries of tiles and steps depend only on the shape.
struct WidenedPlan {
  int64_t row_tiles;    // tiles of nearly equal height
  int64_t panels;       // panels of columns
  int64_t step_blocks;  // blocks of k of nearly equal length
  int64_t steps;        // the length of the longest
  int64_t block_tiles;  // tiles in a block of A
};

GRADRING_INLINE constexpr int64_t widened_block_tiles(int64_t steps) noexcept {
  const int64_t tiles = kWidenedBytes / ((steps > 0 ? steps : 1) * kPackedRows<float> * 4);
  return tiles > 2 ? tiles : 2;
}

GRADRING_INLINE WidenedPlan widened_plan(const Bf16MatmulArguments& g) noexcept {
  WidenedPlan plan;
  plan.row_tiles = divide_up(g.m, kTileRows);
  plan.panels = divide_up(g.n, kPanelColumns);
  plan.step_blocks = g.k > 0 ? divide_up(g.k, kWidenedSteps) : 1;
  plan.steps = divide_up(g.k, plan.step_blocks);
  plan.block_tiles = smaller(widened_block_tiles(plan.steps), plan.row_tiles);
  return plan;
}

inline size_t widened_scratch(const Bf16MatmulArguments& g) noexcept {
  const WidenedPlan plan = widened_plan(g);
  const int64_t a = plan.block_tiles * kPackedRows<float> * plan.steps, b = kPanelColumns * plan.steps;
  const int64_t partial = plan.step_blocks > 1 ? plan.block_tiles * kTileRows * kWidenedPanels * kPanelColumns : 0;
  return static_cast<size_t>(a + b + partial + 64) * sizeof(float);
}

// Computes one block of rows times one block of columns. `sums`: partial column sums, a row of n per row tile, or null.
inline void multiply_widened(const Bf16MatmulArguments& g, const WidenedPlan& plan, int64_t tile_begin,
                             int64_t tile_end, int64_t panel_begin, int64_t panel_end, bool pack_a, float* scratch,
                             float* sums) noexcept {
  float* const packed_b = scratch;
  float* const packed_a = packed_b + kPanelColumns * plan.steps;
  float* const partial = packed_a + plan.block_tiles * kPackedRows<float> * plan.steps;
  const int64_t partial_ld = (panel_end - panel_begin) * kPanelColumns;
  alignas(64) float tile[kTileRows * kPanelColumns];
  const auto row_of = [&](int64_t t) __attribute__((always_inline)) { return g.m * t / plan.row_tiles; };
  const int64_t first_row = row_of(tile_begin);

  TileWork<float> work{};
  work.a_stride = kPackedRows<float>;
  work.b = packed_b;
  work.b_stride = kPanelColumns;
  work.columns = kPanelColumns;
  for (int64_t block = 0; block < plan.step_blocks; ++block) {
    const int64_t step = g.k * block / plan.step_blocks;
    const int64_t steps = g.k * (block + 1) / plan.step_blocks - step;
    work.steps = steps;
    work.add_to_c = block > 0;
    for (int64_t t = tile_begin; t < tile_end && (pack_a || plan.step_blocks > 1); ++t) {
      const int64_t row = row_of(t);
      widen_pack(g.trans_a ? g.a + step * g.lda + row : g.a + row * g.lda + step, g.lda, g.trans_a, row_of(t + 1) - row,
                 steps, packed_a + (t - tile_begin) * kPackedRows<float> * plan.steps, kPackedRows<float>, g.float16);
    }
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      const int64_t column = panel * kPanelColumns, columns = smaller(g.n - column, kPanelColumns);
      const int64_t vectors = divide_up(columns, kWidth<float>);
      widen_pack(g.trans_b ? g.b + column * g.ldb + step : g.b + step * g.ldb + column, g.ldb, !g.trans_b, columns,
                 steps, packed_b, kPanelColumns, g.float16);
      work.columns = vectors * kWidth<float>;  // the packed panel has zeros in the columns beyond n
      for (int64_t t = tile_begin; t < tile_end; ++t) {
        const int64_t row = row_of(t), rows = row_of(t + 1) - row;
        float* to = tile;
        work.ldc = kPanelColumns;
        if (plan.step_blocks > 1) {
          to = partial + (row - first_row) * partial_ld + (panel - panel_begin) * kPanelColumns;
          work.ldc = partial_ld;
        }
        work.a = packed_a + (t - tile_begin) * kPackedRows<float> * plan.steps;
        work.c = to;
        tiles_of<float>().kernel[0][1][vectors - 1][rows - 1](work);
        if (block + 1 < plan.step_blocks) continue;
        deliver(g, Block{row, rows, column, columns}, to, work.ldc, sums ? sums + t * g.n : nullptr);
      }
    }
  }
}

inline void run_widened(const Lane& lane, const Bf16MatmulArguments& g, float* sums) noexcept {
  const WidenedPlan plan = widened_plan(g);
  // Each lane packs its rows of A and its columns of B; cut the side that leaves it less to pack.
  const bool down = g.m >= g.n;
  const Range tiles = down ? split(lane, plan.row_tiles) : Range{0, plan.row_tiles};
  const Range panels = down ? Range{0, plan.panels} : split(lane, plan.panels);
  float* const scratch = reinterpret_cast<float*>(lane.scratch());
  const int64_t most_panels = plan.step_blocks > 1 ? kWidenedPanels : plan.panels;
  for (int64_t t = tiles.begin; t < tiles.end; t += plan.block_tiles) {
    for (int64_t p = panels.begin; p < panels.end; p += most_panels) {
      multiply_widened(g, plan, t, smaller(t + plan.block_tiles, tiles.end), p, smaller(p + most_panels, panels.end),
                       p == panels.begin, scratch, sums);
    }
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

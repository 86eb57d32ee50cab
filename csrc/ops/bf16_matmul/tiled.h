// The product by tiles (ops/tiles/tiles.h). A block of A stays packed in the second cache, a panel of 32 columns of B in the
// first. Lanes share nothing: each computes a rectangle of C from its own packed copies.
#pragma once

#include "ops/bf16_matmul/deliver.h"
#include "ops/bf16_matmul/pack_tiles.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kTilePanel = 2 * kTileSide;  // columns of a panel
inline constexpr int64_t kWholeDepth = 24;            // k is not cut if it has at most so many blocks of 32 steps
inline constexpr int64_t kCutDepth = 16;              // otherwise, a part has at most so many
inline constexpr int64_t kBlockTiles = 32;            // row tiles in a block of A, if k is cut
inline constexpr int64_t kBlockPanels = 16;           // panels in a block of columns, if k is cut
inline constexpr int64_t kBlockOfA = 1 << 9;          // tiles in a block of A, if k is not cut

// How a product is cut; this depends only on the shape.
struct TiledPlan {
  int64_t row_tiles;  // row tiles of equal height
  int64_t height;     // at most 16; the last tile may have fewer rows
  int64_t panels;
  int64_t depth;       // blocks of 32 steps
  int64_t step_parts;  // how many parts k is cut into
  int64_t most_depth;  // blocks of 32 steps in the longest
  int64_t block_tiles, block_panels;
};

inline int64_t tiled_blocks(int64_t x, int64_t by) noexcept { return (x + by - 1) / by; }

inline TiledPlan tiled_plan(const Bf16MatmulArguments& g) noexcept {
  TiledPlan plan;
  plan.row_tiles = tiled_blocks(g.m, kTileSide);
  plan.height = tiled_blocks(g.m, plan.row_tiles);
  plan.row_tiles = tiled_blocks(g.m, plan.height);
  plan.panels = tiled_blocks(g.n, kTilePanel);
  plan.depth = tiled_blocks(g.k, kTileDepth);
  plan.step_parts = plan.depth > kWholeDepth ? tiled_blocks(plan.depth, kCutDepth) : 1;
  plan.most_depth = tiled_blocks(plan.depth, plan.step_parts);
  const int64_t whole = kBlockOfA / (plan.depth > 0 ? plan.depth : 1);
  plan.block_tiles = at_most(plan.step_parts > 1 ? kBlockTiles : (whole > 2 ? whole & ~int64_t{1} : 2), plan.row_tiles);
  plan.block_panels = at_most(plan.step_parts > 1 ? kBlockPanels : plan.panels, plan.panels);
  return plan;
}

inline int64_t even(int64_t x) noexcept { return x + (x & 1); }

inline size_t tiled_scratch(const Bf16MatmulArguments& g) noexcept {
  const TiledPlan plan = tiled_plan(g);
  const int64_t tiles = (even(plan.block_tiles) + 2) * plan.most_depth * kTileElements * 2;
  const int64_t sums = plan.step_parts > 1 ? even(plan.block_tiles) * kTileSide * plan.block_panels * kTilePanel
                                           : 2 * kTileSide * kTilePanel;
  return static_cast<size_t>(tiles + sums * 4 + 64);
}

struct TiledBlock {
  int64_t tile_begin, tile_end, panel_begin, panel_end;
};

// Computes one block. `tiles` is configured. `sums`: partial column sums, a row of n per row tile, or null.
inline void multiply_tiled(const Bf16MatmulArguments& g, const TiledPlan& plan, const TiledBlock& block, bool pack_a,
                           const TileFunctions& tiles, std::byte* scratch, float* sums) noexcept {
  auto* const packed_b = reinterpret_cast<uint16_t*>(scratch);
  uint16_t* const packed_a = packed_b + 2 * plan.most_depth * kTileElements;
  auto* const partial = reinterpret_cast<float*>(packed_a + even(plan.block_tiles) * plan.most_depth * kTileElements);
  const bool cut = plan.step_parts > 1;

  TileBlockWork work;
  work.a_down = plan.most_depth * kTileElements;
  work.b = packed_b;
  work.b_across = plan.most_depth * kTileElements;
  work.ldc = cut ? plan.block_panels * kTilePanel : kTilePanel;
  work.rows = static_cast<int>(plan.height);
  for (int64_t part = 0; part < plan.step_parts; ++part) {
    const int64_t first = plan.depth * part / plan.step_parts, end = plan.depth * (part + 1) / plan.step_parts;
    work.step_blocks = end - first;
    work.add_to_c = part > 0;
    for (int64_t t = block.tile_begin; t < block.tile_end && (pack_a || cut); ++t) {
      const int64_t row = t * plan.height, rows = at_most(g.m - row, plan.height);
      uint16_t* to = packed_a + (t - block.tile_begin) * plan.most_depth * kTileElements;
      for (int64_t d = first; d < end; ++d, to += kTileElements) {
        const int64_t step = d * kTileDepth;
        if (g.trans_a) {
          turn_tile_of_a(g.a + step * g.lda + row, g.lda, rows, g.k - step, to);
        } else {
          copy_tile(g.a + row * g.lda + step, g.lda, rows, g.k - step, to);
        }
      }
    }
    for (int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
      const int64_t column = panel * kTilePanel, columns = at_most(g.n - column, kTilePanel);
      work.across = columns > kTileSide ? 2 : 1;
      for (int64_t d = first; d < end; ++d) {
        const int64_t step = d * kTileDepth;
        for (int64_t j = 0; j < columns; j += kTileSide) {
          uint16_t* const to = packed_b + (j ? work.b_across : 0) + (d - first) * kTileElements;
          if (g.trans_b) {
            turn_tile_of_b(g.b + (column + j) * g.ldb + step, g.ldb, columns - j, g.k - step, to);
          } else {
            interleave_tile(g.b + step * g.ldb + column + j, g.ldb, columns - j, g.k - step, to);
          }
        }
      }
      for (int64_t t = block.tile_begin; t < block.tile_end; t += 2) {
        work.a = packed_a + (t - block.tile_begin) * plan.most_depth * kTileElements;
        work.down = t + 1 < block.tile_end ? 2 : 1;
        work.c = partial;
        if (cut) work.c += (t - block.tile_begin) * kTileSide * work.ldc + (panel - block.panel_begin) * kTilePanel;
        tiles.multiply[0](work);
        if (part + 1 < plan.step_parts) continue;
        for (int64_t i = 0; i < work.down; ++i) {
          const int64_t row = (t + i) * plan.height;
          deliver(g, Block{row, at_most(g.m - row, plan.height), column, columns}, work.c + i * kTileSide * work.ldc,
                  work.ldc, sums ? sums + (t + i) * g.n : nullptr);
        }
      }
    }
  }
}

inline void run_tiled(const Lane& lane, const Bf16MatmulArguments& g, float* sums) noexcept {
  const TiledPlan plan = tiled_plan(g);
  const bool down = g.m >= g.n;
  const Range rows = down ? split(lane, plan.row_tiles, 2) : Range{0, plan.row_tiles};
  const Range panels = down ? Range{0, plan.panels} : split(lane, plan.panels);
  if (rows.begin >= rows.end || panels.begin >= panels.end) return;
  const TileFunctions& tiles = active_tiles();
  tiles.configure(static_cast<int>(plan.height));
  for (int64_t t = rows.begin; t < rows.end; t += plan.block_tiles) {
    for (int64_t p = panels.begin; p < panels.end; p += plan.block_panels) {
      const TiledBlock block{t, at_most(t + plan.block_tiles, rows.end), p, at_most(p + plan.block_panels, panels.end)};
      multiply_tiled(g, plan, block, p == panels.begin, tiles, lane.scratch(), sums);
    }
  }
  tiles.release();
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

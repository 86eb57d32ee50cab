// The product by tiles (ops/tiles/tiles.h). Blocks of A and of C's sums stay in the second cache, and a panel of 32 columns of B in
// the first. Lanes share nothing: each computes a rectangle of C from its own packed copies.
#pragma once

#include "ops/bf16_matmul/deliver.h"
#include "ops/bf16_matmul/pack_tiles.h"
#include "ops/bf16_matmul/subnormal.h"
#include "ops/matmul/dots.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kTilePanel = 2 * kTileSide;  // columns of a panel
inline constexpr int64_t kWholeDepth = 20;            // k is not cut if it has at most so many blocks of 32 steps
inline constexpr int64_t kCutDepth = 16;              // otherwise, a part has at most so many
inline constexpr int64_t kBlockOfA = 512;             // the most tiles in a packed block of A: 512 KiB
inline constexpr int64_t kBlockOfB = 4096;     // the most tiles in a packed block of B that several blocks of A use
inline constexpr int64_t kBlockPanels = 32;    // the most panels in a block of columns
inline constexpr int64_t kSumBytes = 1 << 20;  // the most bytes of sums

// How a product is cut; this depends only on the shape.
struct TiledPlan {
  int64_t row_tiles;     // row tiles of equal height
  int64_t height;        // at most 16; the last tile may have fewer rows
  int64_t panels;        // panels of columns
  int64_t depth;         // blocks of 32 steps
  int64_t parts;         // how many parts k is cut into
  int64_t most_depth;    // blocks of 32 steps in the longest part
  int64_t block_panels;  // panels in a block of columns
  int64_t block_tiles;   // row tiles in a block of rows
  int64_t depth_of_b;    // blocks of 32 steps of B that are packed at a time: all, if several blocks of rows use them
};

GRADRING_INLINE int64_t next_even(int64_t x) noexcept { return x + (x & 1); }

// Whether the transpose of C is computed, as op(B)ᵀ op(A)ᵀ, whose sums are the same. Packing transposes the tiles of a left operand
// that lies transposed, and those of a right one that does. In the transpose of C both are the other way, so that less may have to be
// transposed. Afterwards, C's tiles are, which must be few beside those.
GRADRING_INLINE bool is_turned(const Bf16MatmulArguments& g) noexcept {
  return g.trans_a && g.k * (g.trans_b ? g.m + g.n : g.m - g.n) >= 8 * g.m * g.n;
}

// The product that is cut, packed and multiplied: this one, or the one that gives the transpose of C.
inline Bf16MatmulArguments tiled_product(const Bf16MatmulArguments& g) noexcept {
  Bf16MatmulArguments product = g;
  if (!is_turned(g)) return product;
  product.m = g.n, product.n = g.m;
  product.a = g.b, product.lda = g.ldb, product.trans_a = !g.trans_b;
  product.b = g.a, product.ldb = g.lda, product.trans_b = !g.trans_a;
  return product;
}

inline TiledPlan tiled_plan(const Bf16MatmulArguments& g) noexcept {
  TiledPlan plan;
  plan.height = divide_up(g.m, divide_up(g.m, kTileSide));
  plan.row_tiles = divide_up(g.m, plan.height);
  plan.panels = divide_up(g.n, kTilePanel);
  plan.depth = divide_up(g.k, kTileDepth);
  plan.parts = plan.depth > kWholeDepth ? divide_up(plan.depth, kCutDepth) : 1;
  plan.most_depth = divide_up(plan.depth, plan.parts);
  const int64_t room = kBlockOfB / (2 * larger(plan.depth, 1));
  plan.block_panels = smaller(larger(smaller(room, kBlockPanels), 1), plan.panels);
  // Two blocks of nearly equal size are better than one of full size and a small one.
  plan.block_panels = divide_up(plan.panels, divide_up(plan.panels, plan.block_panels));
  const int64_t of_a = kBlockOfA / larger(plan.most_depth, 1);
  const int64_t of_sums = kSumBytes / (plan.block_panels * kTilePanel * kTileSide * 4);
  plan.block_tiles = larger(smaller(of_a, of_sums), 2) / 2 * 2;
  const int64_t blocks = divide_up(plan.row_tiles, plan.block_tiles);
  plan.block_tiles = next_even(divide_up(plan.row_tiles, blocks));
  plan.depth_of_b = blocks > 1 ? plan.depth : plan.most_depth;
  return plan;
}

// The scratch memory of a lane: packed B, packed A, sums, and exponents of the panels of B in each part.
GRADRING_INLINE int64_t tiles_of_b(const TiledPlan& plan) noexcept { return plan.block_panels * 2 * plan.depth_of_b; }
GRADRING_INLINE int64_t tiles_of_a(const TiledPlan& plan) noexcept { return plan.block_tiles * plan.most_depth; }

inline size_t tiled_scratch(const Bf16MatmulArguments& whole) noexcept {
  const TiledPlan plan = tiled_plan(tiled_product(whole));
  const int64_t tiles = (tiles_of_a(plan) + tiles_of_b(plan)) * kTileElements * 2;
  const int64_t sums = plan.block_tiles * kTileSide * plan.block_panels * kTilePanel;
  return static_cast<size_t>(tiles + (sums + plan.parts * plan.block_panels) * 4 + 64);
}

// Packs the steps [first, end), in blocks of 32, of row tiles [tile_begin, tile_end), and lowers their exponents.
inline void pack_tiles_of_a(const Bf16MatmulArguments& g, const TiledPlan& plan, int64_t tile_begin, int64_t tile_end,
                            int64_t first, int64_t end, uint16_t* packed, int32_t* exponents) noexcept {
  alignas(64) Least least[kBlockOfA];
  for (int64_t t = tile_begin; t < tile_end; ++t) least[t - tile_begin] = broadcast(kNoLeast);
  const auto pack = [&](int64_t t, int64_t d) __attribute__((always_inline)) {
    const int64_t row = t * plan.height, rows = smaller(g.m - row, plan.height), step = d * kTileDepth;
    uint16_t* const to = packed + ((t - tile_begin) * plan.most_depth + d - first) * kTileElements;
    if (g.trans_a) {
      turn_tile_of_a(g.a + step * g.lda + row, g.lda, rows, g.k - step, to);
    } else {
      copy_tile(g.a + row * g.lda + step, g.lda, rows, g.k - step, to);
    }
    lower_by_tile(least[t - tile_begin], to);
  };
  // Walk along the rows as they lie in memory: few pages at a time, and whole cache lines.
  if (g.trans_a) {
    for (int64_t d = first; d < end; ++d)
      for (int64_t t = tile_begin; t < tile_end; ++t) pack(t, d);
  } else {
    for (int64_t t = tile_begin; t < tile_end; ++t)
      for (int64_t d = first; d < end; ++d) pack(t, d);
  }
  for (int64_t t = 0; t < tile_end - tile_begin; ++t) lower(exponents[t], exponent_of(least[t]));
}

// Packs the steps [first, end), in blocks of 32, of panels [panel_begin, panel_end), and lowers their exponents. `packed` is where
// the block `first` of steps belongs. `split`: of two tiles of a panel of a B that is not transposed, one has the even columns.
inline void pack_tiles_of_b(const Bf16MatmulArguments& g, const TiledPlan& plan, int64_t panel_begin, int64_t panel_end,
                            int64_t first, int64_t end, bool split, uint16_t* packed, int32_t* exponents) noexcept {
  const int64_t across = plan.depth_of_b * kTileElements;
  alignas(64) Least least[kBlockPanels];
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) least[panel - panel_begin] = broadcast(kNoLeast);
  const auto pack = [&](int64_t panel, int64_t d) __attribute__((always_inline)) {
    const int64_t column = panel * kTilePanel, columns = smaller(g.n - column, kTilePanel), step = d * kTileDepth;
    uint16_t* const to = packed + (panel - panel_begin) * 2 * across + (d - first) * kTileElements;
    if (g.trans_b) {
      turn_tile_of_b(g.b + column * g.ldb + step, g.ldb, columns, g.k - step, to);
      if (columns > kTileSide) {
        turn_tile_of_b(g.b + (column + kTileSide) * g.ldb + step, g.ldb, columns - kTileSide, g.k - step, to + across);
      }
    } else if (split && columns > kTileSide) {
      split_columns(g.b + step * g.ldb + column, g.ldb, columns, g.k - step, to, across);
    } else {
      interleave_tiles(g.b + step * g.ldb + column, g.ldb, columns, g.k - step, to, across);
    }
    lower_by_tile(least[panel - panel_begin], to);
    if (columns > kTileSide) lower_by_tile(least[panel - panel_begin], to + across);
  };
  if (g.trans_b) {
    for (int64_t panel = panel_begin; panel < panel_end; ++panel)
      for (int64_t d = first; d < end; ++d) pack(panel, d);
  } else {
    for (int64_t d = first; d < end; ++d)
      for (int64_t panel = panel_begin; panel < panel_end; ++panel) pack(panel, d);
  }
  for (int64_t p = 0; p < panel_end - panel_begin; ++p) lower(exponents[p], exponent_of(least[p]));
}

struct TiledBlock {
  int64_t tile_begin, tile_end, panel_begin, panel_end;
};

// How many blocks of rows have partial column sums of their own.
inline int64_t tiled_sum_blocks(const Bf16MatmulArguments& whole) noexcept {
  const TiledPlan plan = tiled_plan(tiled_product(whole));
  return is_turned(whole) ? plan.panels : plan.row_tiles;
}

// Takes the sums of a tile of two tiles' width, which are those of C or of its transpose, through the epilogue of `whole`.
inline void deliver_tile(const Bf16MatmulArguments& whole, const TiledPlan& plan, int64_t panel, int64_t t, float* c,
                         float* sums) noexcept {
  const int64_t row = t * plan.height, column = panel * kTilePanel;
  if (!is_turned(whole)) {
    const Block block{row, smaller(whole.m - row, plan.height), column, smaller(whole.n - column, kTilePanel)};
    return deliver(whole, block, c, kTilePanel, sums ? sums + t * whole.n : nullptr);
  }
  const Block block{column, smaller(whole.m - column, kTilePanel), row, smaller(whole.n - row, plan.height)};
  alignas(64) float turned[kTilePanel * kTileSide];
  if (block.rows > kTileSide) {
    // pack_tiles_of_b has split the panel.
    turn(c, kTilePanel, block.columns, kTileSide, turned, 2 * kTileSide);
    turn(c + kTileSide, kTilePanel, block.columns, kTileSide, turned + kTileSide, 2 * kTileSide);
  } else {
    turn(c, kTilePanel, block.columns, block.rows, turned, kTileSide);
  }
  deliver(whole, block, turned, kTileSide, sums ? sums + panel * whole.n : nullptr);
}

// Computes one block of the product `g` of `whole`. `tiles` is configured. `pack_b`: no earlier block has packed these columns of B.
// `sums`: partial column sums, a row per block of rows of C, or null.
inline void multiply_tiled(const Bf16MatmulArguments& whole, const Bf16MatmulArguments& g, const TiledPlan& plan,
                           const TiledBlock& block, bool pack_b, const TileFunctions& tiles, std::byte* scratch,
                           float* sums) noexcept {
  auto* const packed_b = reinterpret_cast<uint16_t*>(scratch);
  uint16_t* const packed_a = packed_b + tiles_of_b(plan) * kTileElements;
  auto* const partial = reinterpret_cast<float*>(packed_a + tiles_of_a(plan) * kTileElements);
  const int64_t panel_sums = plan.block_tiles * kTileSide * kTilePanel;  // the rows of a panel's sums lie side by side
  auto* const exponents_of_b = reinterpret_cast<int32_t*>(partial + panel_sums * plan.block_panels);
  const bool keep_b = plan.depth_of_b == plan.depth;

  TileBlockWork work;
  work.a_down = plan.most_depth * kTileElements;
  work.b_across = plan.depth_of_b * kTileElements;
  work.ldc = kTilePanel;
  work.rows = static_cast<int>(plan.height);
  // These are the least ones of all parts so far: where the sums of one part may be subnormal, the unit would flush them when it
  // adds those of the next.
  int32_t of_a[kBlockOfA];
  for (int64_t t = 0; t < block.tile_end - block.tile_begin; ++t) of_a[t] = kNoExponent;
  for (int64_t part = 0; part < plan.parts; ++part) {
    const int64_t first = plan.depth * part / plan.parts, end = plan.depth * (part + 1) / plan.parts;
    uint16_t* const b = packed_b + (keep_b ? first : 0) * kTileElements;
    pack_tiles_of_a(g, plan, block.tile_begin, block.tile_end, first, end, packed_a, of_a);
    int32_t* const of_b = exponents_of_b + part * plan.block_panels;
    if (pack_b || !keep_b) {
      for (int64_t p = 0; p < plan.block_panels; ++p) of_b[p] = part > 0 ? of_b[p - plan.block_panels] : kNoExponent;
      pack_tiles_of_b(g, plan, block.panel_begin, block.panel_end, first, end, is_turned(whole), b, of_b);
    }
    work.step_blocks = end - first;
    work.add_to_c = part > 0;
    const auto multiply = [&](int64_t panel, int64_t t, float* c) __attribute__((always_inline)) {
      work.across = g.n - panel * kTilePanel > kTileSide ? 2 : 1;
      work.b = b + (panel - block.panel_begin) * 2 * work.b_across;
      work.a = packed_a + (t - block.tile_begin) * plan.most_depth * kTileElements;
      work.down = t + 1 < block.tile_end ? 2 : 1;
      work.c = c;
      const int32_t* const least = of_a + (t - block.tile_begin);
      if (nothing_subnormal(work.down == 2 ? smaller(least[0], least[1]) : least[0], of_b[panel - block.panel_begin])) {
        tiles.multiply[0](work);
      } else {
        multiply_subnormal(work);
      }
    };
    if (plan.parts == 1) {
      // The sums pass through the first cache, and C is written along its rows. The sums of each block are delivered beside the
      // products of the next, because a processor cannot load what a tile unit stores before it is in the cache.
      const int64_t across = block.panel_end - block.panel_begin;
      const int64_t blocks = divide_up(block.tile_end - block.tile_begin, 2) * across;
      const bool sums_alone = !whole.c.half && !whole.bias && !needs_more(whole) && !is_turned(whole);
      bool delivered[2] = {};
      for (int64_t next = 0; next <= blocks; ++next) {
        if (next < blocks) {
          const int64_t t = block.tile_begin + next / across * 2, panel = block.panel_begin + next % across;
          // Whole tiles of float32 sums that nothing follows are written to C at once.
          const bool whole_tiles = plan.height == kTileSide && g.m - t * kTileSide >= 2 * kTileSide &&
                                   t + 1 < block.tile_end && g.n - panel * kTilePanel >= kTilePanel;
          const bool direct = sums_alone && whole_tiles;
          float* const to = direct ? static_cast<float*>(g.c.data) + t * kTileSide * g.ldc + panel * kTilePanel
                                   : partial + (next & 1) * 2 * kTileSide * kTilePanel;
          work.ldc = direct ? g.ldc : kTilePanel;
          multiply(panel, t, to);
          delivered[next & 1] = direct;
        }
        if (next == 0 || delivered[(next & 1) ^ 1]) continue;
        const int64_t now = next - 1, t = block.tile_begin + now / across * 2;
        for (int64_t i = 0; i < 2 && t + i < block.tile_end; ++i) {
          deliver_tile(whole, plan, block.panel_begin + now % across, t + i,
                       partial + ((now & 1) * 2 + i) * kTileSide * kTilePanel, sums);
        }
      }
      return;
    }
    for (int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
      float* const of_panel = partial + (panel - block.panel_begin) * panel_sums;
      for (int64_t t = block.tile_begin; t < block.tile_end; t += 2) {
        multiply(panel, t, of_panel + (t - block.tile_begin) * kTileSide * kTilePanel);
      }
    }
  }
  for (int64_t t = block.tile_begin; t < block.tile_end; ++t) {
    for (int64_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
      deliver_tile(whole, plan, panel, t,
                   partial + (panel - block.panel_begin) * panel_sums + (t - block.tile_begin) * kTileSide * kTilePanel,
                   sums);
    }
  }
}

inline void run_tiled(const Lane& lane, const Bf16MatmulArguments& whole, const TileFunctions& tiles,
                      float* sums) noexcept {
  const Bf16MatmulArguments g = tiled_product(whole);
  const TiledPlan plan = tiled_plan(g);
  // Each lane packs its rows of A and its columns of B; cut the side that leaves it less to pack.
  const bool down = g.m >= g.n;
  const Range rows = down ? split(lane, plan.row_tiles, 2) : Range{0, plan.row_tiles};
  const Range panels = down ? Range{0, plan.panels} : split(lane, plan.panels);
  if (rows.begin >= rows.end || panels.begin >= panels.end) return;
  tiles.configure(static_cast<int>(plan.height));
  for (int64_t p = panels.begin; p < panels.end; p += plan.block_panels) {
    for (int64_t t = rows.begin; t < rows.end; t += plan.block_tiles) {
      const TiledBlock block{t, smaller(t + plan.block_tiles, rows.end), p, smaller(p + plan.block_panels, panels.end)};
      multiply_tiled(whole, g, plan, block, t == rows.begin, tiles, lane.scratch(), sums);
    }
  }
  tiles.release();
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

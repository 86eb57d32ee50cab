// The product on which the rate of the tile unit is measured.
#pragma once

#include "ops/tiles/tiles.h"

namespace gradring {

// 32 x 256 of A and 256 x 32 of B: 32 KiB, which the first cache holds.
struct MeasuredProduct {
  static constexpr int64_t kBlocks = 8;
  static constexpr double kOperations = 2.0 * 32 * 32 * 32 * kBlocks;

  alignas(64) uint16_t a[2 * kBlocks * kTileElements] = {};
  alignas(64) uint16_t b[2 * kBlocks * kTileElements] = {};
  alignas(64) float c[4 * kTileSide * kTileSide] = {};
  TileBlockWork work;

  MeasuredProduct() noexcept {
    work.a = a, work.b = b;
    work.a_down = work.b_across = kBlocks * kTileElements;
    work.step_blocks = kBlocks;
    work.c = c, work.ldc = 2 * kTileSide;
  }
  MeasuredProduct(const MeasuredProduct&) = delete;
  MeasuredProduct& operator=(const MeasuredProduct&) = delete;

  // Then each sum is the number of steps.
  void fill_with_ones() noexcept {
    for (uint16_t& x : a) x = 0x3f80;
    for (uint16_t& x : b) x = 0x3f80;
  }
};

}  // namespace gradring

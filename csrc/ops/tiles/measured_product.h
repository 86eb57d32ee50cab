// The product on which the rates of the tile unit and of vdpbf16ps are measured.
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

  // Gives the operands different numbers from -2 to 2, multiples of 2^-8. Their products are multiples of 2^-16, and no sum of some
  // of the products of an element reaches 256, so all sums are exact in fp32, in any order (tiles_test.cc).
  void fill() noexcept {
    uint32_t state = 1;
    const auto next = [&state] {
      state = state * 1664525 + 1013904223;  // Numerical Recipes, chapter 7
      return static_cast<uint16_t>((state >> 31) << 15 | 0x3f00 | (state >> 16 & 0xff));
    };
    for (uint16_t& x : a) x = next();
    for (uint16_t& x : b) x = next();
  }
};

}  // namespace gradring

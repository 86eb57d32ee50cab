// Products of tiles by vdpbf16ps (AVX512_BF16), which adds two products of bf16 numbers to each of 16 fp32 numbers. Only
// tiles_dot.cc includes this file, and is compiled with -mavx512bf16. TileBlockWork::fetch is for products by pieces, and not used here.
//
// Eight rows of two tiles of C stay in 16 registers over all blocks of steps. Two steps of k then take 10 loads and 16 products: a
// row of each of two tiles of B, and for each row of A a pair that is broadcast and multiplied by both. By published tables
// Zen 4 begins one such product per cycle and ends it about six cycles later, so at least six sums must be in flight; and it loads
// 64 bytes per cycle. Sixteen rows of one tile would need 17 loads for 16 products: if a broadcast takes as long as a load of 64 bytes,
// the loads would be the limit.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "ops/tiles/tiles.h"

namespace gradring::dot {

inline constexpr int kMostRows = 8;

// kRows rows of C's tiles, which lie at lines[0], lines[1] and so on. Where some lie at the same place, the first of them is what stays
// there. `a` points to the first row of A; its tiles have 16 rows in memory, used or not.
template <int kRows, int kAcross>
[[gnu::noinline]] void multiply_rows(const TileBlockWork& work, const uint16_t* a, float* const* lines) noexcept {
  __m512 sums[kRows][kAcross] = {};
  if (work.add_to_c) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < kAcross; ++j) sums[i][j] = _mm512_loadu_ps(lines[i] + j * kTileSide);
    }
  }
  const uint16_t* b = work.b;
  for (int64_t block = 0; block < work.step_blocks; ++block) {
    for (int64_t p = 0; p < kTileSide; ++p) {
      __m512i columns[kAcross];
#pragma GCC unroll 2
      for (int j = 0; j < kAcross; ++j) columns[j] = _mm512_load_si512(b + j * work.b_across + p * kTileDepth);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        int32_t pair;
        __builtin_memcpy(&pair, a + i * kTileDepth + 2 * p, sizeof pair);
        const __m512i pairs = _mm512_set1_epi32(pair);
#pragma GCC unroll 2
        for (int j = 0; j < kAcross; ++j) {
          sums[i][j] =
              _mm512_dpbf16_ps(sums[i][j], reinterpret_cast<__m512bh>(pairs), reinterpret_cast<__m512bh>(columns[j]));
        }
      }
    }
    a += work.a_along;
    b += work.b_along;
  }
#pragma GCC unroll 8
  for (int i = kRows - 1; i >= 0; --i) {
#pragma GCC unroll 2
    for (int j = 0; j < kAcross; ++j) _mm512_storeu_ps(lines[i] + j * kTileSide, sums[i][j]);
  }
}

template <int kAcross>
inline void multiply_tiles(const TileBlockWork& work) noexcept {
  // Up to 8 rows are computed at once, in passes of nearly equal height. Few heights are enough, because most tiles have 16 rows: where
  // there are fewer rows than a height has, what is computed of the others goes to the place of the last one, which follows.
  const int passes = (work.rows + kMostRows - 1) / kMostRows;
  const int height = ((work.rows + passes - 1) / passes + 1) / 2 * 2;
  for (int64_t tile = 0; tile < work.down; ++tile) {
    for (int row = 0; row < work.rows; row += height) {
      const int rows = work.rows - row < height ? work.rows - row : height;
      float* lines[kMostRows];
      for (int i = 0; i < kMostRows; ++i) {
        lines[i] = work.c + (tile * kTileSide + row + (i < rows ? i : rows - 1)) * work.ldc;
      }
      const uint16_t* const a = work.a + tile * work.a_down + row * kTileDepth;
      if (rows > 6) {
        multiply_rows<8, kAcross>(work, a, lines);
      } else if (rows > 4) {
        multiply_rows<6, kAcross>(work, a, lines);
      } else {
        multiply_rows<4, kAcross>(work, a, lines);
      }
    }
  }
}

inline void multiply(const TileBlockWork& work) noexcept {
  work.across > 1 ? multiply_tiles<2>(work) : multiply_tiles<1>(work);
}

}  // namespace gradring::dot

// If op(A) has few rows or op(B) few columns, and A is transposed or small: the micro-kernel computes Cᵀ = op(B)ᵀ op(A)ᵀ, so that
// its vectors run along a transposed A, and B is read as it lies in memory. Finished tiles are transposed into C.
#pragma once

#include "ops/matmul/blocked.h"
#include "ops/matmul/dots.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The most rows of C for this method if B is transposed too; 0 where inner products, without broadcasts, are faster.
#if defined(__AVX2__) || defined(__aarch64__)
inline constexpr int64_t kFlippedRows = 16;
#else
inline constexpr int64_t kFlippedRows = 0;
#endif

// Whether A, which is not transposed and has few rows, is turned first and then taken as a transposed one, because a transposed B
// is larger. Turning tiles of C takes its time, too, so there must be more steps than rows. With shorter vectors, turning B takes
// as long. Where blocked.h would be the other way, column sums go there: its elements have the same bits, and its column sums keep
// theirs.
template <class T>
GRADRING_INLINE bool turns_a(const MatmulArguments<T>& g) noexcept {
  if (sizeof(Vec<T>) < 32 || (sizeof(Vec<T>) < 64 && !short_by_dots(g))) return false;
  if (g.trans_a || !g.trans_b || (g.epilogue.column_sums && !short_by_dots(g))) return false;
  if (g.m > 4 * kWidth<T> || g.n < 4 * g.m || g.k < 3 * g.m) return false;
  const int64_t rows = divide_up(g.m, kWidth<T>) * kWidth<T>;
  if (rows * g.k * static_cast<int64_t>(sizeof(T)) > kL2Bytes / 2) return false;  // it must stay in the second cache
  return (rows - g.m) * 8 < rows;                                                 // its vectors must be nearly full
}

template <class T>
GRADRING_INLINE bool is_flipped(const MatmulArguments<T>& g) noexcept {
  if (g.m <= 1 || g.k < kWidth<T>) return false;
  if (!g.trans_a) return turns_a(g);
  const int64_t vectors = divide_up(g.m, kWidth<T>);
  if (g.trans_b && g.m <= kFlippedRows && vectors * kWidth<T> * 3 <= g.m * 4) return true;
  return g.n <= kWidth<T> * 3 / 4 && g.n * vectors * 4 <= g.m * 3;
}

// A lane's scratch memory: A, if it is turned.
template <class T>
GRADRING_INLINE size_t flipped_scratch(const MatmulArguments<T>& g) noexcept {
  return g.trans_a ? 0 : static_cast<size_t>(g.k * divide_up(g.m, kWidth<T>) * kWidth<T>) * sizeof(T);
}

// How many panels C's rows are cut into. C's columns are cut into nearly equal tiles.
template <class T>
GRADRING_INLINE int64_t flipped_panels(const MatmulArguments<T>& g) noexcept {
  return divide_up(g.m, kTileColumns<T>);
}

// Writes a tile of Cᵀ, whose rows are kTileColumns apart, to C.
template <class T>
GRADRING_INLINE void turn_into_c(const MatmulArguments<T>& g, const Block& block, const T* tile) noexcept {
  constexpr int64_t W = kWidth<T>;
  alignas(64) T turned[kTileColumns<T> * W];
  for (int64_t r = 0; r < block.columns; r += W) {
    const int64_t count = smaller(W, block.columns - r), j = block.column + r;
    pack_transposed(tile + r * kTileColumns<T>, kTileColumns<T>, count, block.rows, turned, W);
    const Tail<T> tail(count);
    const Vec<T> bias = g.epilogue.bias ? tail.load(g.epilogue.bias + j) : Vec<T>{};
    for (int64_t i = 0; i < block.rows; ++i) {
      T* const c = g.c + (block.row + i) * g.ldc + j;
      Vec<T> sum = load(turned + i * W);
      if (g.epilogue.accumulate) sum += tail.load(c);
      if (g.epilogue.bias) sum += bias;
      tail.store(c, sum);
    }
  }
}

template <class T>
void run_flipped(const Lane& lane, const MatmulArguments<T>& g, T* sums) noexcept {
  // Rows whose distance is a multiple of half a page fall into the same few sets of the first cache.
  const bool crowded = g.trans_b && g.ldb * static_cast<int64_t>(sizeof(T)) % 2048 == 0;
  const int64_t panels = flipped_panels(g);
  int64_t tiles = divide_up(g.n, crowded ? smaller(7, kTileRows) : kTileRows);
  if (tiles > 1 && tiles < 16) tiles += tiles & panels & 1;  // an even number, which two lanes can share equally
  const bool fetch = g.trans_a && g.k * g.m * static_cast<int64_t>(sizeof(T)) > kL2Bytes / 2;
  alignas(64) T tile[kPackedRows<T> * kTileColumns<T>];
  TileWork<T> work{};
  work.a_stride = g.ldb;
  work.b_stride = g.lda;
  work.steps = g.k;
  work.c = tile;
  work.ldc = kTileColumns<T>;
  work.ahead_stride = g.lda;
  const Range part = split(lane, panels * tiles);
  const T* a = g.a;
  if (!g.trans_a && part.begin < part.end) {
    T* const turned = reinterpret_cast<T*>(lane.scratch());
    work.b_stride = divide_up(g.m, kWidth<T>) * kWidth<T>;
    pack_a(g.a, g.lda, false, g.m, g.k, turned, work.b_stride);
    a = turned;
  }
  for (int64_t unit = part.begin; unit < part.end; ++unit) {
    const int64_t panel = unit / tiles, t = unit % tiles;
    const int64_t row = panel * kTileColumns<T>, column = g.n * t / tiles;
    const Block block{row, smaller(kTileColumns<T>, g.m - row), column, g.n * (t + 1) / tiles - column};
    work.a = g.trans_b ? g.b + column * g.ldb : g.b + column;
    work.b = a + row;
    work.columns = block.rows;
    work.ahead = work.b + kTileColumns<T>;
    work.ahead_steps = fetch && t == 0 && row + 2 * kTileColumns<T> <= g.m ? g.k : 0;
    const bool tail = block.rows % kWidth<T> != 0;
    tiles_of<T>().kernel[tail][!g.trans_b][block.rows > kWidth<T>][block.columns - 1](work);
    turn_into_c(g, block, tile);
    if (needs_finish(g.epilogue) || g.epilogue.activation == Activation::kRelu) {
      finish(g, block, sums ? sums + panel * g.n : nullptr, false);
    }
    hand_over(g, block);
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// Packs matrices of bfloat16 into tiles (ops/tiles/tiles.h), with steps 2 p and 2 p + 1 of k side by side. What lies beyond the
// matrix becomes zeros. The functions that pack a tile are large and called from several loops, so they are not inlined.
#pragma once

#include "ops/bf16_matmul/widen.h"
#include "ops/tiles/tiles.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kTilePairs = kTileDepth / 2;

// The first `count` elements at `from`, the others zeros; any count, also below 1.
GRADRING_INLINE HalfVector halves_at(const Bfloat* from, int64_t count) noexcept {
  if (count <= 0) return HalfVector{};
  if (count < kWidth<float>) return load_halves(from, count);
  HalfVector halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  return halves;
}

// Elements of `first` and `second` in turn.
GRADRING_INLINE Bits pairs_of(HalfVector first, HalfVector second) noexcept {
  return wide_bits(first) | (wide_bits(second) << 16);
}

// A tile whose row r is the elements [0, 32) at from + r * leading: A as it lies, if k runs along its rows.
[[gnu::noinline]] inline void copy_tile(const Bfloat* from, int64_t leading, int64_t rows, int64_t steps,
                                        uint16_t* to) noexcept {
  constexpr int64_t W = kWidth<float>;
  if (rows == kTileSide && steps >= kTileDepth) {
    for (int64_t r = 0; r < kTileSide; ++r) {
      __builtin_memcpy(static_cast<void*>(to + r * kTileDepth), static_cast<const void*>(from + r * leading),
                       2 * kTileDepth);
    }
    return;
  }
  for (int64_t r = 0; r < kTileSide; ++r) {
    for (int64_t p = 0; p < kTileDepth; p += W) {
      const HalfVector halves = r < rows ? halves_at(from + r * leading + p, steps - p) : HalfVector{};
      __builtin_memcpy(to + r * kTileDepth + p, &halves, sizeof halves);
    }
  }
}

// One or two tiles side by side, the second `across` elements behind the first. Row p of a tile has, for each of 16 columns j, the
// elements (2 p, j) and (2 p + 1, j) of a matrix of `steps` rows: B, if its columns run along its rows.
[[gnu::noinline]] inline void interleave_tiles(const Bfloat* from, int64_t leading, int64_t columns, int64_t steps,
                                               uint16_t* to, int64_t across) noexcept {
  constexpr int64_t W = kWidth<float>;
  if (columns >= 2 * kTileSide && steps >= kTileDepth) {
    // Both tiles at once: their rows are halves of the same cache lines, which lie so far apart that a set of the first cache
    // may not keep them.
    for (int64_t p = 0; p < kTilePairs; ++p) {
      const Bfloat* const row = from + 2 * p * leading;
      __builtin_prefetch(row + 4 * kTileSide);
      __builtin_prefetch(row + leading + 4 * kTileSide);
      for (int64_t j = 0; j < 2 * kTileSide; j += W) {
        const Bits pairs = pairs_of(halves_at(row + j, W), halves_at(row + leading + j, W));
        uint16_t* const tile = to + (j < kTileSide ? 0 : across - 2 * kTileSide);
        __builtin_memcpy(tile + p * kTileDepth + 2 * j, &pairs, sizeof pairs);
      }
    }
    return;
  }
  for (int64_t p = 0; p < kTilePairs; ++p) {
    const Bfloat* const row = from + 2 * p * leading;
    for (int64_t j = 0; j < (columns > kTileSide ? 2 * kTileSide : kTileSide); j += W) {
      const HalfVector even = 2 * p < steps ? halves_at(row + j, columns - j) : HalfVector{};
      const HalfVector odd = 2 * p + 1 < steps ? halves_at(row + leading + j, columns - j) : HalfVector{};
      const Bits pairs = pairs_of(even, odd);
      uint16_t* const tile = to + (j < kTileSide ? 0 : across - 2 * kTileSide);
      __builtin_memcpy(tile + p * kTileDepth + 2 * j, &pairs, sizeof pairs);
    }
  }
}

// Like interleave_tiles, but one tile has the even columns, and the other one the odd columns. Neighbours stay where they are, so that
// no vector is permuted.
[[gnu::noinline]] inline void split_columns(const Bfloat* from, int64_t leading, int64_t columns, int64_t steps,
                                            uint16_t* to, int64_t across) noexcept {
  constexpr int64_t W = kWidth<float>;
  const auto row_of = [&](int64_t step, int64_t j) __attribute__((always_inline)) {
    HalfVector halves[2] = {};
    if (step < steps) {
      halves[0] = halves_at(from + step * leading + j, columns - j);
      halves[1] = halves_at(from + step * leading + j + W, columns - j - W);
    }
    Bits row;
    __builtin_memcpy(&row, halves, sizeof row);
    return row;
  };
  const auto put = [&](int64_t p, int64_t j, Bits even, Bits odd) __attribute__((always_inline)) {
    const Bits tiles[2] = {(even & 0xffff) | (odd << 16), (even >> 16) | (odd & 0xffff0000)};
    __builtin_memcpy(to + p * kTileDepth + j, &tiles[0], sizeof tiles[0]);
    __builtin_memcpy(to + across + p * kTileDepth + j, &tiles[1], sizeof tiles[1]);
  };
  if (columns >= 2 * kTileSide && steps >= kTileDepth) {
    for (int64_t p = 0; p < kTilePairs; ++p) {
      const Bfloat* const row = from + 2 * p * leading;
      __builtin_prefetch(row + 4 * kTileSide);
      __builtin_prefetch(row + leading + 4 * kTileSide);
      for (int64_t j = 0; j < 2 * kTileSide; j += 2 * W) {
        Bits even, odd;
        __builtin_memcpy(&even, static_cast<const void*>(row + j), sizeof even);
        __builtin_memcpy(&odd, static_cast<const void*>(row + leading + j), sizeof odd);
        put(p, j, even, odd);
      }
    }
    return;
  }
  for (int64_t p = 0; p < kTilePairs; ++p) {
    for (int64_t j = 0; j < 2 * kTileSide; j += 2 * W) put(p, j, row_of(2 * p, j), row_of(2 * p + 1, j));
  }
}

// Writes the transpose of a matrix of 16 x 16 pairs: row(r, c) gives the pairs c, c + 1, ... of its row r.
template <class Row>
GRADRING_INLINE void transpose_pairs(const Row& row, uint16_t* to) noexcept {
  constexpr int64_t W = kWidth<float>;
  for (int64_t r = 0; r < kTileSide; r += W) {
    for (int64_t c = 0; c < kTileSide; c += W) {
      Vec<float> v[W];
      GRADRING_UNROLL_16
      for (int64_t i = 0; i < W; ++i) v[i] = from_bits(row(r + i, c));
      transpose_stage<float, 1>(v);
      GRADRING_UNROLL_16
      for (int64_t i = 0; i < W; ++i) __builtin_memcpy(to + (c + i) * kTileDepth + 2 * r, &v[i], sizeof v[i]);
    }
  }
}

// A tile of A that lies transposed: from + p * leading has step p of `rows` rows.
[[gnu::noinline]] inline void turn_tile_of_a(const Bfloat* from, int64_t leading, int64_t rows, int64_t steps,
                                             uint16_t* to) noexcept {
  if (rows == kTileSide && steps >= kTileDepth) {
    return transpose_pairs(
        [&](int64_t p, int64_t i) __attribute__((always_inline)) {
          const Bfloat* const step = from + 2 * p * leading + i;
          return pairs_of(halves_at(step, kWidth<float>), halves_at(step + leading, kWidth<float>));
        },
        to);
  }
  transpose_pairs(
      [&](int64_t p, int64_t i) __attribute__((always_inline)) {
        const Bfloat* const step = from + 2 * p * leading + i;
        return pairs_of(2 * p < steps ? halves_at(step, rows - i) : HalfVector{},
                        2 * p + 1 < steps ? halves_at(step + leading, rows - i) : HalfVector{});
      },
      to);
}

// A tile of B that lies transposed: from + j * leading has the steps of column j.
[[gnu::noinline]] inline void turn_tile_of_b(const Bfloat* from, int64_t leading, int64_t columns, int64_t steps,
                                             uint16_t* to) noexcept {
  constexpr int64_t W = kWidth<float>;
  if (columns >= kTileSide && steps >= kTileDepth) {
    return transpose_pairs(
        [&](int64_t j, int64_t p) __attribute__((always_inline)) {
          Bits pairs;
          __builtin_memcpy(&pairs, static_cast<const void*>(from + j * leading + 2 * p), sizeof pairs);
          return pairs;
        },
        to);
  }
  transpose_pairs(
      [&](int64_t j, int64_t p) __attribute__((always_inline)) {
        Bits pairs{};
        if (j >= columns) return pairs;
        const HalfVector halves[2] = {halves_at(from + j * leading + 2 * p, steps - 2 * p),
                                      halves_at(from + j * leading + 2 * p + W, steps - 2 * p - W)};
        __builtin_memcpy(&pairs, halves, sizeof pairs);
        return pairs;
      },
      to);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// Cuts fp32 numbers into bf16 pieces, and packs the pieces into tiles (tiles.h). Only for *_cpu.cc files.
//
// x = x0 + x1 + x2 exactly: x0 is x rounded to the 8 bits of a bf16, x1 is the rest rounded to 8 bits, and at most 8 bits are left
// for x2. Ties are rounded away from zero, which takes one addition. |x1| <= 2^-8 |x| and |x2| <= 2^-16 |x|. This holds for
// numbers whose exponent is in [-100, 126]; the range of each panel is computed while it is packed.
#pragma once

#include "ops/matmul/pack.h"
#include "ops/simd/half.h"
#include "ops/tiles/tiles.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The least and the greatest magnitude among the numbers of a panel that are not zeros, as bits.
struct Magnitudes {
  Bits most{};                      // of |x|
  Bits least = repeat(0xffffffff);  // of |x| - 1: zeros wrap around
};

// The exponents of these. A panel of zeros has low > high.
struct Exponents {
  int32_t low = 1000, high = -1000;

  GRADRING_INLINE bool zeros() const noexcept { return low > high; }
};

GRADRING_INLINE Exponents exponents_of(const Magnitudes& m) noexcept {
  uint32_t most = 0, least = 0xffffffff;
  for (int i = 0; i < kWidth<float>; ++i) {
    if (m.most[i] > most) most = m.most[i];
    if (m.least[i] < least) least = m.least[i];
  }
  if (most == 0) return {};
  return {static_cast<int32_t>((least + 1) >> 23) - 127, static_cast<int32_t>(most >> 23) - 127};
}

// Whether products of pieces give what fp32 products give: no piece of an operand overflows, is subnormal or is not a number; no
// sum of `steps` products overflows; and what the unit flushes, below 2^-126, is far below the rounding errors of fp32, which
// are 2^-24 of the smallest product.
GRADRING_INLINE bool pieces_hold(const Exponents& a, const Exponents& b, int32_t steps_exponent) noexcept {
  return a.high <= 126 && b.high <= 126 && a.low >= -100 && b.low >= -100 && a.high + b.high + steps_exponent <= 124 &&
         a.low + b.low >= -96;
}

GRADRING_INLINE Bits upper_piece(Bits x) noexcept { return (x + 0x8000) & 0xffff0000; }
// Two pieces in the upper halves of words become neighbours in one word.
GRADRING_INLINE Bits side_by_side(Bits first, Bits second) noexcept { return (first >> 16) | second; }

// Writes the pieces of two vectors, which become neighbours, to rows of tiles that are kTileElements apart.
template <int kPieces>
GRADRING_INLINE void cut_pair(Vec<float> first, Vec<float> second, uint16_t* to, Magnitudes& range) noexcept {
  const auto put = [&](int piece, Bits b) __attribute__((always_inline)) {
    __builtin_memcpy(to + piece * kTileElements, &b, sizeof b);
  };
  for (const Vec<float> v : {first, second}) {
    const Bits magnitude = bits_of(v) & 0x7fffffff;
    range.most = magnitude > range.most ? magnitude : range.most;
    const Bits less = magnitude - 1;
    range.least = less < range.least ? less : range.least;
  }
  const Bits first0 = upper_piece(bits_of(first)), second0 = upper_piece(bits_of(second));
  put(0, side_by_side(first0, second0));
  const Vec<float> first_rest = first - from_bits(first0), second_rest = second - from_bits(second0);
  const Bits first1 = upper_piece(bits_of(first_rest)), second1 = upper_piece(bits_of(second_rest));
  put(1, side_by_side(first1, second1));
  if constexpr (kPieces > 2) {
    // These have no more than 8 bits.
    put(2, side_by_side(bits_of(first_rest - from_bits(first1)), bits_of(second_rest - from_bits(second1))));
  }
}

// Packs 16 rows of 16 pairs: row i of the tile is made of from[i * stride + 0 .. 15] and, `apart` elements on, their partners.
template <int kPieces>
GRADRING_INLINE void cut_tile(const float* from, int64_t stride, int64_t apart, uint16_t* to,
                              Magnitudes& range) noexcept {
  constexpr int kW = kWidth<float>;
  for (int64_t i = 0; i < kTileSide; ++i) {
    for (int64_t j = 0; j < kTileSide; j += kW) {
      cut_pair<kPieces>(load(from + i * stride + j), load(from + apart + i * stride + j), to + (i * kTileSide + j) * 2,
                        range);
    }
  }
}

inline constexpr int64_t kPanelLines = 2 * kTileSide;

// One side of a product: `lines` rows of op(A) or columns of op(B). `along` says that the steps of a line are adjacent in memory.
struct Side {
  const float* from;
  int64_t ld;
  int64_t lines;
  int64_t steps;
  bool along;
  bool row_is_line;  // rows of a tile are lines (A), or steps (B)

  GRADRING_INLINE const float* at(int64_t line, int64_t step) const noexcept {
    return from + (along ? line * ld + step : step * ld + line);
  }
};

// Packs the tile that begins at (line, step) and has `lines` lines of `steps` steps; the rest of it is zeros.
template <int kPieces>
GRADRING_INLINE void pack_tile(const Side& side, int64_t line, int64_t lines, int64_t step, int64_t steps, uint16_t* to,
                               Magnitudes& range) noexcept {
  constexpr int64_t S = kTileSide;
  constexpr int kW = kWidth<float>;
  const float* const from = side.at(line, step);
  const bool whole = lines == S && steps == kTileDepth;
  if (side.along == side.row_is_line && whole) {
    // Steps p and p + 16 are a pair.
    return cut_tile<kPieces>(from, side.ld, side.along ? S : S * side.ld, to, range);
  }
  alignas(64) float turned[2 * S * S];
  if (!whole)
    for (float& x : turned) x = 0;
  for (int64_t half = 0; half < 2; ++half) {
    const int64_t first = half * S;
    const int64_t here = steps - first < S ? steps - first : S;
    if (here <= 0) break;
    float* const out = turned + half * S * S;
    const float* const in = from + (side.along ? first : first * side.ld);
    const int64_t rows = side.along ? lines : here, columns = side.along ? here : lines;
    if (side.along == side.row_is_line) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) out[i * S + j] = in[i * side.ld + j];
    } else {
      for (int64_t i = 0; i < rows; i += kW) {
        pack_transposed(in + i * side.ld, side.ld, rows - i < kW ? rows - i : kW, columns, out + i, S);
      }
    }
  }
  cut_tile<kPieces>(turned, S, S * S, to, range);
}

// Packs a panel, some parts at a time: lines [line, line + lines), at most 32, of steps [step, step + steps). For each block of 32
// steps there are the pieces of the first 16 lines, and then, if there are more than 16, those of the others.
template <int kPieces>
class PanelPacker {
 public:
  PanelPacker() = default;
  PanelPacker(const Side& side, int64_t line, int64_t lines, int64_t step, int64_t steps, uint16_t* to) noexcept
      : side_(side), line_(line), lines_(lines), step_(step), steps_(steps), to_(to) {
    tiles_ = lines > kTileSide ? 2 : 1;
    together_ = !side.along && !side.row_is_line && lines == kPanelLines ? steps / kTileDepth : 0;
    const int64_t blocks = (steps + kTileDepth - 1) / kTileDepth;
    parts_ = together_ * kParts + (blocks - together_) * tiles_;
  }

  int64_t parts() const noexcept { return parts_; }
  uint16_t* to() const noexcept { return to_; }

  // Packs the parts that are left, but none from `end` on.
  void pack(int64_t end) noexcept {
    if (next_ >= end) return;
    Magnitudes range = range_;
    for (; next_ < end; ++next_) {
      if (next_ < together_ * kParts) {
        pack_rows(next_ / kParts * kTileDepth, next_ % kParts * kPartRows, range);
        continue;
      }
      const int64_t part = next_ - together_ * kParts;
      if (side_.along) {  // a line's steps lie side by side, so one line of tiles follows the other
        const int64_t blocks = (steps_ + kTileDepth - 1) / kTileDepth;
        pack_tile_at(part / blocks, part % blocks * kTileDepth, range);
      } else {
        pack_tile_at(part % tiles_, (together_ + part / tiles_) * kTileDepth, range);
      }
    }
    range_ = range;
  }

  // Packs all that is left, and returns the range of the panel's numbers.
  Exponents finish() noexcept {
    pack(parts_);
    return exponents_of(range_);
  }

 private:
  static constexpr int64_t kPartRows = 4;
  static constexpr int64_t kParts = kTileSide / kPartRows;  // of a block of steps whose two tiles are packed together

  GRADRING_INLINE void pack_tile_at(int64_t tile, int64_t p, Magnitudes& range) noexcept {
    const int64_t left = lines_ - tile * kTileSide;
    if (side_.along) {
      for (int64_t i = 0; i < kTileSide && i < left; ++i) {
        const float* const ahead = side_.at(line_ + tile * kTileSide + i, step_ + p) + 2 * kTileDepth;
        __builtin_prefetch(ahead, 0, 2);
        __builtin_prefetch(ahead + kTileDepth - 1, 0, 2);
      }
    } else if (tile == 0) {
      // The lines of two steps are far apart in memory, so no hardware prefetcher follows; often they fall into the same few sets
      // of the first cache, so they are fetched into the second.
      const float* const next = side_.at(line_, step_ + p + kTileDepth);
      for (int64_t i = 0; i < kTileDepth && i < steps_ - p - kTileDepth; ++i) {
        __builtin_prefetch(next + i * side_.ld, 0, 2);
        __builtin_prefetch(next + i * side_.ld + lines_ - 1, 0, 2);
      }
    }
    pack_tile<kPieces>(side_, line_ + tile * kTileSide, left < kTileSide ? left : kTileSide, step_ + p,
                       steps_ - p < kTileDepth ? steps_ - p : kTileDepth,
                       to_ + (p / kTileDepth * tiles_ + tile) * kPieces * kTileElements, range);
  }

  // Packs rows [first, first + kPartRows) of both tiles of steps p to p + 31.
  GRADRING_INLINE void pack_rows(int64_t p, int64_t first, Magnitudes& range) noexcept {
    const float* const here = side_.at(line_, step_ + p);
    const float* const next = here + kTileDepth * side_.ld;
    const int64_t ahead = steps_ - p - kTileDepth;
    uint16_t* const out = to_ + p * kPanelLines * kPieces;
    for (int64_t i = first; i < first + kPartRows; ++i) {
      for (int64_t half = 0; half < 2; ++half) {
        const int64_t q = half * kTileSide + i;
        if (q >= ahead) continue;
        __builtin_prefetch(next + q * side_.ld, 0, 2);
        __builtin_prefetch(next + q * side_.ld + kTileSide, 0, 2);
      }
      for (int64_t j = 0; j < kPanelLines; j += kWidth<float>) {
        const float* const from = here + i * side_.ld + j;
        const int64_t tile = j / kTileSide, column = j % kTileSide;
        cut_pair<kPieces>(load(from), load(from + kTileSide * side_.ld),
                          out + tile * kPieces * kTileElements + (i * kTileSide + column) * 2, range);
      }
    }
  }

  Magnitudes range_;
  Side side_{};
  int64_t line_ = 0, lines_ = 0, step_ = 0, steps_ = 0;
  uint16_t* to_ = nullptr;
  int64_t tiles_ = 1, together_ = 0;  // blocks of steps whose two tiles are packed together come first
  int64_t parts_ = 0, next_ = 0;
};

template <int kPieces>
Exponents pack_panel(const Side& side, int64_t line, int64_t lines, int64_t step, int64_t steps,
                     uint16_t* to) noexcept {
  return PanelPacker<kPieces>(side, line, lines, step, steps, to).finish();
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

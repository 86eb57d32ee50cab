// Where the tile unit would flush subnormal numbers to zeros (ops/tiles/tiles.h), and the product of such tiles by multiply-adds,
// which keep them.
//
// A bf16 number with the exponent e is a multiple of 2^(e - 7). If e and f are the least exponents of the numbers of A and of B
// that are not zeros, then all products, and all their sums, rounded or not, are multiples of 2^(e + f - 14). None of them is
// subnormal if this is at least 2^-126.
#pragma once

#include "ops/simd.h"
#include "ops/simd/half.h"
#include "ops/tiles/tiles.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The least 2 |x| - 1 of packed numbers, as the bits of bf16 numbers; each element is the least of some of the numbers. A zero
// wraps around to the greatest number.
using Least = Vec<uint16_t>;
inline constexpr uint16_t kNoLeast = 0xffff;

GRADRING_INLINE void lower_by_tile(Least& least, const uint16_t* tile) noexcept {
  constexpr int64_t W = kWidth<uint16_t>;
  Least parts[4];
  for (Least& part : parts) part = least;
  for (int64_t i = 0; i < kTileElements; i += 4 * W) {
    GRADRING_UNROLL_16
    for (int64_t part = 0; part < 4; ++part) {
      const Vec<uint16_t> bits = load(tile + i + part * W);
      const Vec<uint16_t> less = bits + bits - 1;
      parts[part] = less < parts[part] ? less : parts[part];
    }
  }
  for (int64_t part = 1; part < 4; ++part) parts[0] = parts[part] < parts[0] ? parts[part] : parts[0];
  least = parts[0];
}

inline constexpr int32_t kNoExponent = 256;  // of zeros alone

// The least exponent as it is stored: 0 for a subnormal number.
GRADRING_INLINE int32_t exponent_of(const Least& numbers) noexcept {
  typedef uint16_t Part __attribute__((vector_size(16)));
  constexpr int kParts = sizeof(Least) / sizeof(Part);
  Part parts[kParts];
  __builtin_memcpy(parts, &numbers, sizeof numbers);
  for (int i = 1; i < kParts; ++i) parts[0] = parts[i] < parts[0] ? parts[i] : parts[0];
#ifdef __SSE4_1__
  const auto least = static_cast<uint16_t>(_mm_extract_epi16(_mm_minpos_epu16(reinterpret_cast<__m128i>(parts[0])), 0));
#else
  uint16_t least = kNoLeast;
  for (int i = 0; i < 8; ++i)
    if (parts[0][i] < least) least = parts[0][i];
#endif
  return (int32_t{least} + 1) >> 8;
}

GRADRING_INLINE void lower(int32_t& exponent, int32_t other) noexcept {
  if (other < exponent) exponent = other;
}

// Whether the unit flushes nothing in sums of products of numbers with these exponents or greater ones.
GRADRING_INLINE bool nothing_subnormal(int64_t a, int64_t b) noexcept {
  return a > 0 && b > 0 && a + b >= 2 * 127 + 14 - 126;
}

// What TileFunctions::multiply[0] does, with subnormal numbers. The tiles of A have 16 rows, and those of step blocks are adjacent.
inline void multiply_subnormal(const TileBlockWork& work) noexcept {
  constexpr int64_t W = kWidth<float>, kRows = 8;
  for (int64_t tile = 0; tile < work.down * work.across; ++tile) {
    const int64_t i = tile / work.across, j = tile % work.across;
    const uint16_t* const a = work.a + i * work.a_down;
    const uint16_t* const b = work.b + j * work.b_across;
    float* const c = work.c + i * kTileSide * work.ldc + j * kTileSide;
    for (int64_t row = 0; row < work.rows; row += kRows) {
      const int64_t rows = work.rows - row < kRows ? work.rows - row : kRows;
      for (int64_t column = 0; column < kTileSide; column += W) {
        Vec<float> sums[kRows] = {};
        for (int64_t r = 0; r < rows && work.add_to_c; ++r) sums[r] = load(c + (row + r) * work.ldc + column);
        for (int64_t p = 0; p < work.step_blocks * kTileSide; ++p) {
          Bits pairs;
          __builtin_memcpy(&pairs, b + p * kTileDepth + 2 * column, sizeof pairs);
          const Vec<float> even = from_bits(pairs << 16), odd = from_bits(pairs & 0xffff0000);
          const uint16_t* const from = a + p / kTileSide * kTileElements + row * kTileDepth + p % kTileSide * 2;
          GRADRING_UNROLL_16
          for (int64_t r = 0; r < kRows; ++r) {
            const Bits first = repeat(uint32_t{from[r * kTileDepth]} << 16);
            const Bits second = repeat(uint32_t{from[r * kTileDepth + 1]} << 16);
            sums[r] += from_bits(first) * even;
            sums[r] += from_bits(second) * odd;
          }
        }
        for (int64_t r = 0; r < rows; ++r) store(c + (row + r) * work.ldc + column, sums[r]);
      }
    }
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

// The emulation. A product of two bf16 numbers is exact in double, and so is its sum with an fp32 number, except where double
// rounding is innocuous (double has more than twice the bits of fp32, plus two), so each step rounds as the unit does.
#include "ops/simd.h"
#include "ops/tiles/kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

constexpr int kSide = static_cast<int>(kTileSide);
constexpr double kSmallestNormal = 0x1p-126;
// A result is subnormal if it is so after rounding to 24 bits with an exponent without limit.
constexpr double kSubnormalBelow = kSmallestNormal - 0x1p-151;

GRADRING_INLINE double magnitude(double x) noexcept { return x < 0 ? -x : x; }

// Rounds to fp32; a subnormal result becomes a zero of the same sign.
GRADRING_INLINE float rounded(double x) noexcept {
  const float zero = static_cast<float>(x * 0.0);
  return magnitude(x) < kSubnormalBelow ? zero : static_cast<float>(x);
}

GRADRING_INLINE float flushed(float x) noexcept {
  return magnitude(static_cast<double>(x)) < kSmallestNormal ? x * 0.0f : x;
}

GRADRING_INLINE float widened(uint16_t bits) noexcept {
  const uint32_t wide = (bits & 0x7f80) == 0 ? uint32_t{bits & 0x8000u} << 16 : uint32_t{bits} << 16;
  float x;
  __builtin_memcpy(&x, &wide, sizeof x);
  return x;
}

// C += A B for one tile of each.
void add_product(const uint16_t* a, const uint16_t* b, int rows, float* c, int64_t ldc) noexcept {
  alignas(64) float factors[2][kSide][kSide];
  for (int p = 0; p < kSide; ++p)
    for (int j = 0; j < kSide; ++j)
      for (int odd = 0; odd < 2; ++odd) factors[odd][p][j] = widened(b[p * 2 * kSide + 2 * j + odd]);
  for (int i = 0; i < rows; ++i) {
    float sums[2][kSide] = {};
    for (int odd = 0; odd < 2; ++odd) {
      for (int p = 0; p < kSide; ++p) {
        const double factor = widened(a[i * 2 * kSide + 2 * p + odd]);
        for (int j = 0; j < kSide; ++j) {
          sums[odd][j] = rounded(factor * static_cast<double>(factors[odd][p][j]) + static_cast<double>(sums[odd][j]));
        }
      }
    }
    float* const row = c + i * ldc;
    for (int j = 0; j < kSide; ++j) {
      const float both = rounded(static_cast<double>(sums[0][j]) + static_cast<double>(sums[1][j]));
      row[j] = rounded(static_cast<double>(flushed(row[j])) + static_cast<double>(both));
    }
  }
}

struct Pair {
  int a, b;
};
// The products of pieces, in the order of tiles.h. Those of one pass over k are added for a block of steps before the next block.
constexpr Pair kProducts[3][6] = {{{0, 0}}, {{1, 0}, {0, 0}, {0, 1}}, {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}}};
constexpr int kPassEnds[3][2] = {{1, 1}, {3, 3}, {5, 6}};  // where the products of the first and of the second pass end

template <int kPieces>
void multiply(const TileBlockWork& work) noexcept {
  const auto pass = [&](int first, int end, int i, int j, float* c) {
    for (int64_t block = 0; block < work.step_blocks; ++block) {
      const uint16_t* const a = work.a + i * work.a_down + block * work.a_along;
      const uint16_t* const b = work.b + j * work.b_across + block * work.b_along;
      for (int product = first; product < end; ++product) {
        const Pair pair = kProducts[kPieces - 1][product];
        add_product(a + pair.a * work.a_piece, b + pair.b * work.b_piece, work.rows, c, work.ldc);
      }
    }
  };
  constexpr const int* kEnds = kPassEnds[kPieces - 1];
  for (int i = 0; i < work.down; ++i) {
    for (int j = 0; j < work.across; ++j) {
      float* const c = work.c + i * kTileSide * work.ldc + j * kTileSide;
      if (!work.add_to_c) {
        for (int row = 0; row < work.rows; ++row)
          for (int column = 0; column < kSide; ++column) c[row * work.ldc + column] = 0;
      }
      pass(0, kEnds[0], i, j, c);
      pass(kEnds[0], kEnds[1], i, j, c);
    }
  }
}

void configure(int) noexcept {}
void release() noexcept {}

}  // namespace

extern const TileFunctions emulated_tile_functions;
const TileFunctions emulated_tile_functions = {"emulated", configure, release, {multiply<1>, multiply<2>, multiply<3>}};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

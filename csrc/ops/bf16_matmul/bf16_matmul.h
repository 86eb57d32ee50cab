// bf16_matmul: C = epilogue(op(A) op(B)) for matrices of bfloat16 or float16, row-major. All sums and the epilogue are in
// float32, and each result is rounded once, when it is written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gradring/export.h"
#include "ops/activation/activation.h"
#include "ops/cast/half.h"
#include "ops/work.h"
#include "runtime/lane.h"

namespace gradring {

// An array of float32, or of the 16-bit float of the product that it belongs to, or none.
struct HalfOrFloat {
  void* data = nullptr;
  bool half = false;  // its elements have 16 bits

  explicit operator bool() const noexcept { return data != nullptr; }
};

// The work on each block of the product, in the fields' order. All arrays may be absent.
//   v = A B, in float32
//   v += bias[column]
//   pre[row, column] = v
//   v = activation(v)
//   v *= derivative(mask)(mask_source[row, column])     as in MatmulEpilogue
//   column_sums[column] = sum over rows of v
//   C = v
struct Bf16MatmulArguments {
  int64_t m = 0, n = 0, k = 0;  // op(A) is m x k, op(B) is k x n, C is m x n
  bool float16 = false;         // all elements of 16 bits are float16, and Bfloat only stands for their bits
  const Bfloat* a = nullptr;
  int64_t lda = 0;  // elements between rows of A as it lies in memory
  bool trans_a = false;
  const Bfloat* b = nullptr;
  int64_t ldb = 0;
  bool trans_b = false;
  HalfOrFloat c;
  int64_t ldc = 0;

  HalfOrFloat bias;
  HalfOrFloat pre;  // its rows are ldc elements apart
  Activation activation = Activation::kNone;
  Activation mask = Activation::kNone;
  HalfOrFloat mask_source;  // its rows are mask_ld elements apart
  int64_t mask_ld = 0;
  HalfOrFloat column_sums;  // summed in fixed blocks of rows: the same bits for any number of lanes
};

// How products are computed: products of tiles by the tile unit or by vdpbf16ps, where these are faster than multiply-adds, which is
// measured once, or multiply-adds of numbers that are converted while they are packed. Few rows of bfloat16 are always multiplied
// as they are read. Small operands that do not fill tiles are converted as a whole. float16 has no products of tiles and no few rows.
enum class Bf16Way : uint8_t { kFastest, kWidened, kTiles, kDots };
// For tests: sets the way. The tiles of kTiles may be emulated ones, see ops/tiles/tiles.h; kDots needs dot_tiles().
void set_bf16_way(Bf16Way way) noexcept;
// The way of products of bfloat16 that have more than a few rows, and fill tiles: never kFastest.
GRADRING_API Bf16Way bf16_way() noexcept;
// The fastest way, given how many times as fast as multiply-adds the unit and vdpbf16ps are; 0 where there is none.
Bf16Way fastest_bf16_way(double unit_advantage, double dot_advantage) noexcept;

// How much scratch memory the team must have reserved for this call, and how many lanes are worth waking for it.
ScratchBytes bf16_matmul_scratch(const Bf16MatmulArguments& arguments, int lanes) noexcept;
int bf16_matmul_lanes(const Bf16MatmulArguments& arguments, int lanes) noexcept;

// Every lane of a running team (or one lane alone) calls it with the same arguments. Lanes may return at different times.
// m, n and k may be 0. It has a barrier only if there are column sums.
void bf16_matmul(const Lane& lane, const Bf16MatmulArguments& arguments) noexcept;

}  // namespace gradring

// Products of small matrices ("tiles") of bf16 with sums in fp32: the processor's tile unit, an emulation that gives the same
// bits where there is none, and an instruction for vectors, which rounds in another order. Callers pack their operands into tiles and choose a table of functions; everything else of a matrix
// product (its division into blocks, its epilogue) is theirs.
//
// A tile of A holds 16 rows of 32 steps: 512 elements of 2 bytes, row after row, which is 1 KiB. A tile of B holds 32 steps of 16
// columns in 16 rows: row p has, for each column j, two steps side by side, as elements 2 j and 2 j + 1. The two elements 2 p and
// 2 p + 1 of a row of A belong to the same two steps. Which steps of k these 32 are, and in which order, is the packer's choice,
// if A and B agree: steps 2 p and 2 p + 1 in order, or p and p + 16, which takes no permutation of vectors. Unused rows, columns
// and steps are zeros. A tile of C is 16 x 16 fp32, where it lies in C.
//
// What a product of tiles computes (Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS), for each element
// of C: `even`, the chain of multiply-adds from 0 over elements 0, 2, 4, ... 30 of the row of A; `odd`, the same over
// 1, 3, ... 31; then C + (even + odd). Each step rounds once, to the nearest with ties to even. Subnormal operands count as
// zeros, and subnormal results become zeros. NaN and infinities go through. The emulation gives the same bits, except which NaN.
//
// What vdpbf16ps computes (the same manual, VDPBF16PS): a chain of multiply-adds from C, for each pair first the odd element and then
// the even one. Each step rounds, and flushes subnormal numbers, as above. Not all processors need add a pair in this order.
//
// An operand may consist of several pieces, whose sum it is. Then a product of operands is the sum of products of pieces:
//   one piece      a0 b0
//   two pieces     a1 b0 + a0 b0 + a0 b1
//   three pieces   a2 b0 + a1 b0 + a1 b1 + a0 b1 + a0 b2, then a0 b0
// For each block of 32 steps, they are added to C in this order, and then those of the next block. With three pieces, a0 b0 of all
// blocks follow when the other products of all blocks have been added: these sum to less than 2^-6 of |A||B|, so C is
// rounded at its full size once per block instead of six times.
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

inline constexpr int64_t kTileSide = 16;       // rows and columns of a tile of C
inline constexpr int64_t kTileDepth = 32;      // steps of k in a tile of A or B
inline constexpr int64_t kTileElements = 512;  // elements of a tile of A or B

// The work on a block of C of `down` x `across` tiles, each 1 or 2. Distances are in elements. Tiles begin at multiples of 64
// bytes; C may lie anywhere.
struct TileBlockWork {
  const uint16_t* a = nullptr;      // the first tile: row tile 0, step block 0, piece 0
  int64_t a_down = 0;               // to the tile of the next 16 rows
  int64_t a_along = kTileElements;  // to the tile of the next 32 steps
  int64_t a_piece = 0;
  const uint16_t* b = nullptr;
  int64_t b_across = 0;  // to the tile of the next 16 columns
  int64_t b_along = kTileElements;
  int64_t b_piece = 0;
  int64_t step_blocks = 0;  // how many blocks of 32 steps; 0 is allowed
  float* c = nullptr;
  int64_t ldc = 0;
  int down = 2, across = 2;
  int rows = kTileSide;   // the rows of each tile of A and C, as in the call of `configure`
  bool add_to_c = false;  // C's old value is part of the sum; if not, C is only written
  // Memory that later work will read, or null: each block of steps fetches the next `fetch_rows` pieces of 128 bytes, which are
  // fetch_stride bytes apart, into the second cache. The pieces of the next block of steps begin fetch_advance bytes on.
  const char* fetch = nullptr;
  int64_t fetch_stride = 0, fetch_advance = 0;
  int fetch_rows = 0;
  // Work for the processor's other units, or null. With several pieces, the tile unit's functions call it kBeside[pieces - 1] times
  // in each block of steps; other functions do not, so that the caller does what is left.
  void (*beside)(void* context) noexcept = nullptr;
  void* context = nullptr;
};
inline constexpr int kBeside[3] = {0, 1, 2};

struct TileFunctions {
  const char* name;
  // A lane calls `configure` before its first product and `release` after its last, in the same kernel. `rows`, 1 to 16, is how
  // many rows the tiles of A and C have; a product takes as long as it has rows.
  void (*configure)(int rows) noexcept;
  void (*release)() noexcept;
  void (*multiply[3])(const TileBlockWork&) noexcept;  // by the number of pieces, less 1
};

// The unit's functions; null if the unit is absent, refused or switched off (runtime/tile_unit.h), or computes wrong sums.
const TileFunctions* unit_tiles() noexcept;
const TileFunctions& emulated_tiles() noexcept;
// Whether these functions give the right sums for one product, whose sums and all parts of them are exact, so that no order of
// adding and rounding makes a difference.
bool sums_are_right(const TileFunctions& functions) noexcept;

// The functions that use vdpbf16ps; null if the processor lacks it (has_avx512_bf16) or computes wrong sums. Products of pieces by
// these functions are those of the emulation.
const TileFunctions* dot_tiles() noexcept;

// The functions that products of pieces use: the unit's, or else the emulation's.
const TileFunctions& active_tiles() noexcept;
// For tests: products use the emulation, or again the unit if there is one.
void emulate_tiles(bool on) noexcept;

// How many times as many operations per second the unit does as this processor's fp32 multiply-adds; 0 without the unit. It is
// measured at the first call, by the best of several short tries of both, because a unit that is there is not always fast.
GRADRING_API double tile_unit_advantage() noexcept;
// The same of the functions that use vdpbf16ps: some processors do it at half the rate of multiply-adds, and some at twice that rate.
GRADRING_API double dot_advantage() noexcept;
// Operations per second of the unit, or of `dots` of vdpbf16ps, on `lanes` threads together, on operands in the first cache: the
// median of a few measurements. 0 without it.
GRADRING_API double measure_tile_flops(int lanes, bool dots = false);

}  // namespace gradring

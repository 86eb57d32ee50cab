// Products of tiles by Intel AMX. Only tiles_amx.cc includes this file, and is compiled with -mamx-tile and -mamx-bf16.
//
// A block of 2 x 2 tiles of C stays in registers 0 to 3; 4 and 5 hold tiles of A, 6 and 7 of B. Each load serves two products or
// more: with three pieces, 16 loads serve 24 products. The compilers' macros take literal register numbers.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "ops/tiles/tiles.h"

namespace gradring::amx {

struct alignas(64) Configuration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(Configuration) == 64);

inline void configure(int rows) noexcept {
  Configuration configuration;
  for (int tile = 0; tile < 8; ++tile) {
    configuration.row_bytes[tile] = 64;
    configuration.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : kTileSide);
  }
  // Not _tile_loadconfig: GCC's names 8 bytes of the operand as read, so the compiler may leave out the rest.
  asm volatile("ldtilecfg %0" : : "m"(configuration));
}

inline void release() noexcept { _tile_release(); }

// These macros load the tiles of A or of B that `from` points at, or make products with them. `kDown` and `kAcross` are constants
// in the functions that use them.
#define GRADRING_LOAD_A(from)                                \
  do {                                                       \
    _tile_loadd(4, (from), 64);                              \
    if (kDown > 1) _tile_loadd(5, (from) + work.a_down, 64); \
  } while (false)
#define GRADRING_LOAD_B(from)                                    \
  do {                                                           \
    _tile_loadd(6, (from), 64);                                  \
    if (kAcross > 1) _tile_loadd(7, (from) + work.b_across, 64); \
  } while (false)
#define GRADRING_MULTIPLY()                                \
  do {                                                     \
    _tile_dpbf16ps(0, 4, 6);                               \
    if (kAcross > 1) _tile_dpbf16ps(1, 4, 7);              \
    if (kDown > 1) _tile_dpbf16ps(2, 5, 6);                \
    if (kDown > 1 && kAcross > 1) _tile_dpbf16ps(3, 5, 7); \
  } while (false)

// These make products and load the next tiles into each register after the last product that reads it, so that a load runs beside
// the other products.
#define GRADRING_MULTIPLY_THEN_LOAD_A(next)                  \
  do {                                                       \
    _tile_dpbf16ps(0, 4, 6);                                 \
    if (kAcross > 1) _tile_dpbf16ps(1, 4, 7);                \
    _tile_loadd(4, (next), 64);                              \
    if (kDown > 1) _tile_dpbf16ps(2, 5, 6);                  \
    if (kDown > 1 && kAcross > 1) _tile_dpbf16ps(3, 5, 7);   \
    if (kDown > 1) _tile_loadd(5, (next) + work.a_down, 64); \
  } while (false)
#define GRADRING_MULTIPLY_THEN_LOAD_B(next)                      \
  do {                                                           \
    _tile_dpbf16ps(0, 4, 6);                                     \
    if (kDown > 1) _tile_dpbf16ps(2, 5, 6);                      \
    _tile_loadd(6, (next), 64);                                  \
    if (kAcross > 1) _tile_dpbf16ps(1, 4, 7);                    \
    if (kDown > 1 && kAcross > 1) _tile_dpbf16ps(3, 5, 7);       \
    if (kAcross > 1) _tile_loadd(7, (next) + work.b_across, 64); \
  } while (false)
#define GRADRING_MULTIPLY_THEN_LOAD(next_a, next_b)                \
  do {                                                             \
    _tile_dpbf16ps(0, 4, 6);                                       \
    if (kAcross > 1) _tile_dpbf16ps(1, 4, 7);                      \
    _tile_loadd(4, (next_a), 64);                                  \
    if (kDown > 1) _tile_dpbf16ps(2, 5, 6);                        \
    _tile_loadd(6, (next_b), 64);                                  \
    if (kDown > 1 && kAcross > 1) _tile_dpbf16ps(3, 5, 7);         \
    if (kDown > 1) _tile_loadd(5, (next_a) + work.a_down, 64);     \
    if (kAcross > 1) _tile_loadd(7, (next_b) + work.b_across, 64); \
  } while (false)

// Fetches a tile that a later block of steps needs into the first cache. With one piece, a block needs as many bytes from the second
// cache as that gives in the time of its products, so a load must not wait.
inline void fetch_tile(const uint16_t* tile) noexcept {
  for (int64_t line = 0; line < kTileElements; line += 32) __builtin_prefetch(tile + line);
}

// The unit makes products while the processor's other units do this.
inline void work_beside(const TileBlockWork& work) noexcept {
  if (work.beside) work.beside(work.context);
}

template <int kPieces, int kDown, int kAcross>
void multiply_block(const TileBlockWork& work) noexcept {
  const int64_t c_bytes = work.ldc * static_cast<int64_t>(sizeof(float));
  float* const c = work.c;
  float* const below = c + kTileSide * work.ldc;
  if (work.add_to_c) {
    _tile_loadd(0, c, c_bytes);
    if (kAcross > 1) _tile_loadd(1, c + kTileSide, c_bytes);
    if (kDown > 1) _tile_loadd(2, below, c_bytes);
    if (kDown > 1 && kAcross > 1) _tile_loadd(3, below + kTileSide, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint16_t* a = work.a;
  const uint16_t* b = work.b;
  const char* fetch = work.fetch;
  for (int64_t block = 0; block < work.step_blocks; ++block) {
    if (fetch) {
      for (int row = 0; row < work.fetch_rows; ++row) {
        _mm_prefetch(fetch + row * work.fetch_stride, _MM_HINT_T1);
        _mm_prefetch(fetch + row * work.fetch_stride + 64, _MM_HINT_T1);
      }
      fetch += work.fetch_advance;
    }
    if (kPieces == 1) {
      fetch_tile(a + work.a_along);
      if (kDown > 1) fetch_tile(a + work.a_down + work.a_along);
      fetch_tile(b + 2 * work.b_along);
      if (kAcross > 1) fetch_tile(b + work.b_across + 2 * work.b_along);
      if (block == 0) {
        GRADRING_LOAD_A(a);
        GRADRING_LOAD_B(b);
      }
      if (block + 1 < work.step_blocks) {
        GRADRING_MULTIPLY_THEN_LOAD(a + work.a_along, b + work.b_along);
      } else {
        GRADRING_MULTIPLY();
      }
    } else if (kPieces == 2) {
      if (block == 0) {
        GRADRING_LOAD_A(a + work.a_piece);
        GRADRING_LOAD_B(b);
      }
      GRADRING_MULTIPLY_THEN_LOAD_A(a);
      GRADRING_MULTIPLY_THEN_LOAD_B(b + work.b_piece);
      work_beside(work);
      if (block + 1 < work.step_blocks) {
        GRADRING_MULTIPLY_THEN_LOAD(a + work.a_along + work.a_piece, b + work.b_along);
      } else {
        GRADRING_MULTIPLY();
      }
    } else {
      if (block == 0) {
        GRADRING_LOAD_A(a + 2 * work.a_piece);
        GRADRING_LOAD_B(b);
      }
      GRADRING_MULTIPLY_THEN_LOAD_A(a + work.a_piece);
      GRADRING_MULTIPLY_THEN_LOAD_B(b + work.b_piece);
      work_beside(work);
      GRADRING_MULTIPLY_THEN_LOAD_A(a);
      GRADRING_MULTIPLY_THEN_LOAD_B(b + 2 * work.b_piece);
      work_beside(work);
      if (block + 1 < work.step_blocks) {
        GRADRING_MULTIPLY_THEN_LOAD(a + work.a_along + 2 * work.a_piece, b + work.b_along);
      }
    }
    a += work.a_along;
    b += work.b_along;
  }
  if (kPieces == 3 && work.step_blocks > 0) {
    a = work.a;
    b = work.b;
    GRADRING_MULTIPLY_THEN_LOAD(a, b);
    for (int64_t block = 1; block < work.step_blocks; ++block) {
      a += work.a_along;
      b += work.b_along;
      GRADRING_MULTIPLY_THEN_LOAD(a, b);
    }
    GRADRING_MULTIPLY();
  }
  _tile_stored(0, c, c_bytes);
  if (kAcross > 1) _tile_stored(1, c + kTileSide, c_bytes);
  if (kDown > 1) _tile_stored(2, below, c_bytes);
  if (kDown > 1 && kAcross > 1) _tile_stored(3, below + kTileSide, c_bytes);
}

#undef GRADRING_LOAD_A
#undef GRADRING_LOAD_B
#undef GRADRING_MULTIPLY
#undef GRADRING_MULTIPLY_THEN_LOAD_A
#undef GRADRING_MULTIPLY_THEN_LOAD_B
#undef GRADRING_MULTIPLY_THEN_LOAD

template <int kPieces>
void multiply(const TileBlockWork& work) noexcept {
  if (work.down > 1) {
    work.across > 1 ? multiply_block<kPieces, 2, 2>(work) : multiply_block<kPieces, 2, 1>(work);
  } else {
    work.across > 1 ? multiply_block<kPieces, 1, 2>(work) : multiply_block<kPieces, 1, 1>(work);
  }
}

}  // namespace gradring::amx

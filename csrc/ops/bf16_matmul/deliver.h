// The end of a block of C: its sums in float32 pass through the epilogue, and go to C.
#pragma once

#include "ops/bf16_matmul/bf16_matmul.h"
#include "ops/bf16_matmul/widen.h"
#include "ops/matmul/epilogue.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// The most rows and columns of a block, or of a part of it that is finished at once.
inline constexpr int64_t kDeliveredRows = 32;
inline constexpr int64_t kDeliveredColumns = 64;

GRADRING_INLINE Vec<float> get_part(const HalfOrFloat& from, int64_t i, int64_t n, bool float16) noexcept {
  if (from.half) return load_wide(static_cast<const Bfloat*>(from.data) + i, n, float16);
  return load_partial(static_cast<const float*>(from.data) + i, smaller(n, kWidth<float>));
}

// Copies a block between an array and a buffer of float32, which has whole vectors of room in every row.
inline void read_block(const HalfOrFloat& from, int64_t from_ld, const Block& block, float* to, int64_t ld,
                       bool float16) noexcept {
  constexpr int64_t W = kWidth<float>;
  for (int64_t i = 0; i < block.rows; ++i) {
    const int64_t at = (block.row + i) * from_ld + block.column;
    for (int64_t j = 0; j < block.columns; j += W)
      store(to + i * ld + j, get_part(from, at + j, block.columns - j, float16));
  }
}

inline void write_block(const HalfOrFloat& to, int64_t to_ld, const Block& block, const float* from, int64_t ld,
                        bool float16) noexcept {
  constexpr int64_t W = kWidth<float>;
  const int64_t whole = block.columns / W * W, rest = block.columns - whole;
  for (int64_t i = 0; i < block.rows; ++i) {
    const int64_t at = (block.row + i) * to_ld + block.column;
    const float* const row = from + i * ld;
    if (to.half && float16) {
      Bfloat* const out = static_cast<Bfloat*>(to.data) + at;
      for (int64_t j = 0; j < block.columns; j += W) store_narrow(out + j, load(row + j), block.columns - j, true);
    } else if (to.half) {
      Bfloat* const out = static_cast<Bfloat*>(to.data) + at;
      for (int64_t j = 0; j < whole; j += W) store_narrow(out + j, load(row + j), false);
      if (rest) store_narrow(out + whole, load(row + whole), rest, false);
    } else {
      float* const out = static_cast<float*>(to.data) + at;
      for (int64_t j = 0; j < whole; j += W) store(out + j, load(row + j));
      if (rest) store_partial(out + whole, load(row + whole), rest);
    }
  }
}

// Whether finish() of the float32 product has anything to do.
GRADRING_INLINE bool needs_more(const Bf16MatmulArguments& g) noexcept {
  return g.pre || g.activation != Activation::kNone || g.mask != Activation::kNone || g.column_sums;
}

// Finishes a block of at most kDeliveredRows x kDeliveredColumns, whose sums lie at `tile` with whole vectors of room in every
// row. `sums`: a row of n partial column sums, or null.
inline void deliver(const Bf16MatmulArguments& g, const Block& block, float* tile, int64_t ld, float* sums) noexcept {
  constexpr int64_t W = kWidth<float>;
  if (g.bias) {
    for (int64_t j = 0; j < block.columns; j += W) {
      const Vec<float> bias = get_part(g.bias, block.column + j, block.columns - j, g.float16);
      for (int64_t i = 0; i < block.rows; ++i) store(tile + i * ld + j, load(tile + i * ld + j) + bias);
    }
  }
  if (needs_more(g)) {
    alignas(64) float source[kDeliveredRows * kDeliveredColumns];
    if (g.pre) write_block(g.pre, g.ldc, block, tile, ld, g.float16);
    MatmulArguments<float> f;
    f.n = block.columns;
    f.c = tile;
    f.ldc = ld;
    f.epilogue.activation = g.activation;
    f.epilogue.mask = g.mask;
    if (g.mask != Activation::kNone) {
      read_block(g.mask_source, g.mask_ld, block, source, kDeliveredColumns, g.float16);
      f.epilogue.mask_source = source;
      f.epilogue.mask_ld = kDeliveredColumns;
    }
    finish(f, Block{0, block.rows, 0, block.columns}, sums ? sums + block.column : nullptr, false);
  }
  write_block(g.c, g.ldc, block, tile, ld, g.float16);
}

// The same for a block of any size.
inline void deliver_large(const Bf16MatmulArguments& g, const Block& block, float* tile, int64_t ld,
                          float* sums) noexcept {
  for (int64_t i = 0; i < block.rows; i += kDeliveredRows) {
    for (int64_t j = 0; j < block.columns; j += kDeliveredColumns) {
      deliver(g,
              Block{block.row + i, smaller(block.rows - i, kDeliveredRows), block.column + j,
                    smaller(block.columns - j, kDeliveredColumns)},
              tile + i * ld + j, ld, sums);
    }
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

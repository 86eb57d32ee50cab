// Reads matrices of bfloat16 as float32: vectors, and packed copies in the order in which the micro-kernel reads them.
#pragma once

#include "ops/cast/half.h"
#include "ops/matmul/pack.h"
#include "ops/simd/simd_half_tail.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

GRADRING_INLINE Vec<float> load_wide(const Bfloat* from) noexcept {
  HalfVector halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  return widen_bfloat16(halves);
}

// Loads the first n elements, at least one and at most all of a vector, and fills the rest with zeros. It reads nothing beyond them.
GRADRING_INLINE Vec<float> load_wide(const Bfloat* from, int64_t n) noexcept {
  if (n >= kWidth<float>) return load_wide(from);
  return widen_bfloat16(load_halves(from, n));
}

GRADRING_INLINE void store_narrow(Bfloat* to, Vec<float> v) noexcept {
  const HalfVector halves = narrow_bfloat16(v);
  __builtin_memcpy(static_cast<void*>(to), &halves, sizeof halves);
}

GRADRING_INLINE void store_narrow(Bfloat* to, Vec<float> v, int64_t n) noexcept {
  if (n >= kWidth<float>) return store_narrow(to, v);
  store_halves(to, narrow_bfloat16(v), n);
}

// Sets to[p * to_stride + r] = from[r * from_stride + p] for r < rows <= width, p < steps; elements from `rows` on become 0.
inline void widen_transposed(const Bfloat* from, int64_t from_stride, int64_t rows, int64_t steps, float* to,
                             int64_t to_stride) noexcept {
  constexpr int64_t W = kWidth<float>;
  for (int64_t p = 0; p < steps; p += W) {
    const int64_t count = steps - p < W ? steps - p : W;
    Vec<float> v[W];
    if (count == W) {
      GRADRING_UNROLL_16
      for (int64_t r = 0; r < W; ++r) v[r] = r < rows ? load_wide(from + r * from_stride + p) : Vec<float>{};
    } else {
      for (int64_t r = 0; r < W; ++r) v[r] = r < rows ? load_wide(from + r * from_stride + p, count) : Vec<float>{};
    }
    transpose_stage<float, 1>(v);
    GRADRING_UNROLL_16
    for (int64_t r = 0; r < W; ++r)
      if (r < count) store(to + (p + r) * to_stride, v[r]);
  }
}

// Sets to[p * to_stride + r] = from[p * from_stride + r] for r < rows <= width; the rest of the vector becomes 0.
inline void widen_rows(const Bfloat* from, int64_t from_stride, int64_t rows, int64_t steps, float* to,
                       int64_t to_stride) noexcept {
  if (rows == kWidth<float>) {
    for (int64_t p = 0; p < steps; ++p) {
      __builtin_prefetch(from + (p + 16) * from_stride);
      store(to + p * to_stride, load_wide(from + p * from_stride));
    }
  } else {
    for (int64_t p = 0; p < steps; ++p) store(to + p * to_stride, load_wide(from + p * from_stride, rows));
  }
}

// Packs `rows` rows of op(A), or columns of op(B), for a range of steps, a vector beside the other; steps are `stride` elements
// apart. `along` says that neighbours of one step are adjacent in memory; if not, the steps of one row are.
inline void widen_pack(const Bfloat* from, int64_t leading, bool along, int64_t rows, int64_t steps, float* to,
                       int64_t stride) noexcept {
  constexpr int64_t W = kWidth<float>;
  for (int64_t r = 0; r < rows; r += W) {
    const int64_t count = rows - r < W ? rows - r : W;
    if (along) {
      widen_rows(from + r, leading, count, steps, to + r, stride);
    } else {
      widen_transposed(from + r * leading, leading, count, steps, to + r, stride);
    }
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

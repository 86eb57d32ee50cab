// Reads matrices of 16-bit floats as float32: vectors, and packed copies in the order in which the micro-kernel reads them.
// `float16` says that they are float16, and not bfloat16.
#pragma once

#include "ops/cast/half.h"
#include "ops/matmul/pack.h"
#include "ops/simd/simd_half_tail.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

// (AVX2 has an instruction for this, too, but no inline function may use it.)
#if defined(__AVX512F__) && GRADRING_VECTOR_BYTES == 64
GRADRING_INLINE Vec<float> widen_half(HalfVector halves) noexcept {
  return _mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(halves));  // the maskz form: see simd_avx512.h
}
#else
[[gnu::noinline]] inline Vec<float> widen_half(HalfVector halves) noexcept { return widen_float16(halves); }
#endif
[[gnu::noinline]] inline HalfVector narrow_half(Vec<float> v) noexcept { return narrow_float16(v); }

GRADRING_INLINE Vec<float> widened(HalfVector halves, bool float16) noexcept {
  return float16 ? widen_half(halves) : widen_bfloat16(halves);
}

GRADRING_INLINE Vec<float> load_wide(const Bfloat* from, bool float16 = false) noexcept {
  HalfVector halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  return widened(halves, float16);
}

// Loads the first n elements, at least one and at most all of a vector, and fills the rest with zeros. It reads nothing beyond them.
GRADRING_INLINE Vec<float> load_wide(const Bfloat* from, int64_t n, bool float16 = false) noexcept {
  if (n >= kWidth<float>) return load_wide(from, float16);
  return widened(load_halves(from, n), float16);
}

GRADRING_INLINE void store_narrow(Bfloat* to, Vec<float> v, bool float16) noexcept {
  const HalfVector halves = float16 ? narrow_half(v) : narrow_bfloat16(v);
  __builtin_memcpy(static_cast<void*>(to), &halves, sizeof halves);
}

GRADRING_INLINE void store_narrow(Bfloat* to, Vec<float> v, int64_t n, bool float16) noexcept {
  if (n >= kWidth<float>) return store_narrow(to, v, float16);
  store_halves(to, float16 ? narrow_half(v) : narrow_bfloat16(v), n);
}

// Sets to[p * to_stride + r] = from[r * from_stride + p] for r < rows <= width, p < steps; elements from `rows` on become 0.
inline void widen_transposed(const Bfloat* from, int64_t from_stride, int64_t rows, int64_t steps, float* to,
                             int64_t to_stride, bool float16) noexcept {
  constexpr int64_t W = kWidth<float>;
  for (int64_t p = 0; p < steps; p += W) {
    const int64_t count = steps - p < W ? steps - p : W;
    Vec<float> v[W];
    if (count == W) {
      GRADRING_UNROLL_16
      for (int64_t r = 0; r < W; ++r) v[r] = r < rows ? load_wide(from + r * from_stride + p, float16) : Vec<float>{};
    } else {
      for (int64_t r = 0; r < W; ++r)
        v[r] = r < rows ? load_wide(from + r * from_stride + p, count, float16) : Vec<float>{};
    }
    transpose_stage<float, 1>(v);
    GRADRING_UNROLL_16
    for (int64_t r = 0; r < W; ++r)
      if (r < count) store(to + (p + r) * to_stride, v[r]);
  }
}

// Sets to[p * to_stride + r] = from[p * from_stride + r] for r < rows <= width; the rest of the vector becomes 0.
inline void widen_rows(const Bfloat* from, int64_t from_stride, int64_t rows, int64_t steps, float* to,
                       int64_t to_stride, bool float16) noexcept {
  if (rows == kWidth<float>) {
    for (int64_t p = 0; p < steps; ++p) {
      __builtin_prefetch(from + (p + 16) * from_stride);
      store(to + p * to_stride, load_wide(from + p * from_stride, float16));
    }
  } else {
    for (int64_t p = 0; p < steps; ++p) store(to + p * to_stride, load_wide(from + p * from_stride, rows, float16));
  }
}

// Packs `rows` rows of op(A), or columns of op(B), for a range of steps, a vector beside the other; steps are `stride` elements
// apart. `along` says that neighbours of one step are adjacent in memory; if not, the steps of one row are.
inline void widen_pack(const Bfloat* from, int64_t leading, bool along, int64_t rows, int64_t steps, float* to,
                       int64_t stride, bool float16) noexcept {
  constexpr int64_t W = kWidth<float>;
  for (int64_t r = 0; r < rows; r += W) {
    const int64_t count = rows - r < W ? rows - r : W;
    if (along) {
      widen_rows(from + r, leading, count, steps, to + r, stride, float16);
    } else {
      widen_transposed(from + r * leading, leading, count, steps, to + r, stride, float16);
    }
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

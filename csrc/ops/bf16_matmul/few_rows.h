// Products with few rows: nothing is packed. B is read once, at the speed of the memory (or cache) it is in, and converted in
// registers.
#pragma once

#include "ops/bf16_matmul/deliver.h"
#include "ops/matmul/dots.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kFewRows = kSmallCode ? 1 : 4;

// Whether B's columns are contiguous, so that inner products along k read it best.
GRADRING_INLINE bool few_by_dots(const Bf16MatmulArguments& g) noexcept {
  return g.trans_b && g.k >= 4 * kWidth<float>;
}

GRADRING_INLINE bool has_few_rows(const Bf16MatmulArguments& g) noexcept {
  return g.m <= kFewRows && g.k > 0 && !g.float16 && (!g.trans_b || few_by_dots(g));
}

// op(A) in float32 lies in the scratch memory: its rows side by side for inner products, or its columns for row sums.
GRADRING_INLINE size_t few_rows_scratch(const Bf16MatmulArguments& g) noexcept {
  return static_cast<size_t>(16 + g.m * (g.k + kWidth<float>)) * sizeof(float);
}

// Sums kVectors vectors of columns, each element in one chain in the order of k. `columns`: how many of them there are.
template <int kRows, int kVectors, bool kTail>
GRADRING_INLINE void sum_rows(const Bf16MatmulArguments& g, const float* a, int64_t column, int64_t columns, float* to,
                              int64_t ld) noexcept {
  constexpr int64_t W = kWidth<float>;
  Vec<float> sums[kRows][kVectors] = {};
  const Bfloat* b = g.b + column;
  for (int64_t p = 0; p < g.k; ++p) {
    if (!kTail) {
      __builtin_prefetch(b + 16 * g.ldb);
      __builtin_prefetch(b + 16 * g.ldb + kVectors * W - 1);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vec<float> row = kTail ? load_wide(b + v * W, columns - v * W) : load_wide(b + v * W);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) sums[i][v] += a[i] * row;
    }
    a += kRows;
    b += g.ldb;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(to + i * ld + v * W, sums[i][v]);
}

template <int kRows>
void run_few_sums(const Lane& lane, const Bf16MatmulArguments& g, float* a, float* sums) noexcept {
  constexpr int64_t W = kWidth<float>;
  constexpr int kVectors = kRows == 1 ? 8 : kRows == 2 ? 4 : 2;
  constexpr int64_t kColumns = kVectors * W;
  if (kRows == 1 && !g.trans_a) {
    for (int64_t p = 0; p < g.k; p += W) store(a + p, load_wide(g.a + p, g.k - p));
  } else {
    const int64_t across = g.trans_a ? 1 : g.lda, along = g.trans_a ? g.lda : 1;
    for (int64_t p = 0; p < g.k; ++p)
#pragma GCC unroll 4
      for (int64_t i = 0; i < kRows; ++i) {
        const uint32_t bits = uint32_t{g.a[p * along + i * across].bits} << 16;
        __builtin_memcpy(a + p * kRows + i, &bits, sizeof bits);
      }
  }
  alignas(64) float tile[kRows * kColumns];
  const Range part = split(lane, g.n, W);
  for (int64_t j = part.begin; j < part.end;) {
    const int64_t rest = part.end - j, half = kColumns / 2;
    const int64_t columns = rest >= kColumns ? kColumns : rest >= half ? half : smaller(rest, W);
    if (columns == kColumns) {
      sum_rows<kRows, kVectors, false>(g, a, j, columns, tile, kColumns);
    } else if (kVectors > 2 && columns == half) {
      sum_rows<kRows, kVectors / 2, false>(g, a, j, columns, tile, kColumns);
    } else if (columns == W) {
      sum_rows<kRows, 1, false>(g, a, j, columns, tile, kColumns);
    } else {
      sum_rows<kRows, 1, true>(g, a, j, columns, tile, kColumns);
    }
    deliver_large(g, Block{0, kRows, j, columns}, tile, kColumns, sums);
    j += columns;
  }
}

// The elementwise sums of the products of each row of A with kColumns columns of B.
template <int kRows, int kColumns>
GRADRING_INLINE void sum_dots(const Bf16MatmulArguments& g, const float* a, int64_t a_stride, const Bfloat* b,
                              Vec<float>* to) noexcept {
  constexpr int64_t W = kWidth<float>;
  Vec<float> sums[kRows][kColumns] = {};
  int64_t p = 0;
  for (; p + W <= g.k; p += W) {
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) {
      const Vec<float> column = load_wide(b + j * g.ldb + p);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) sums[i][j] += load(a + i * a_stride + p) * column;
    }
  }
  if (p < g.k) {
    for (int j = 0; j < kColumns; ++j) {
      const Vec<float> column = load_wide(b + j * g.ldb + p, g.k - p);
      for (int i = 0; i < kRows; ++i) sums[i][j] += load_partial(a + i * a_stride + p, g.k - p) * column;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) to[i * W + j] = sums[i][j];
}

template <int kRows>
void run_few_dots(const Lane& lane, const Bf16MatmulArguments& g, float* a, float* sums) noexcept {
  constexpr int64_t W = kWidth<float>;
  for (int64_t i = 0; i < kRows; ++i) {
    if (g.trans_a) {
      for (int64_t p = 0; p < g.k; ++p) {
        const uint32_t bits = uint32_t{g.a[p * g.lda + i].bits} << 16;
        __builtin_memcpy(a + i * g.k + p, &bits, sizeof bits);
      }
    } else {
      for (int64_t p = 0; p < g.k; p += W) {
        store_partial(a + i * g.k + p, load_wide(g.a + i * g.lda + p, g.k - p), smaller(g.k - p, W));
      }
    }
  }
  const Range part = split(lane, g.n, g.n < lane.count * W ? 4 : W);
  alignas(64) float tile[kRows * W];
  for (int64_t j = part.begin; j < part.end; j += W) {
    const int64_t columns = smaller(part.end - j, W);
    Vec<float> partial[kRows][W] = {};
    int64_t q = 0;
    for (; q + 4 <= columns; q += 4) sum_dots<kRows, 4>(g, a, g.k, g.b + (j + q) * g.ldb, &partial[0][q]);
    for (; q < columns; ++q) sum_dots<kRows, 1>(g, a, g.k, g.b + (j + q) * g.ldb, &partial[0][q]);
    for (int i = 0; i < kRows; ++i) {
      horizontal_sums<float, static_cast<int>(W), 1>(partial[i]);
      store(tile + i * W, partial[i][0]);
    }
    deliver(g, Block{0, kRows, j, columns}, tile, W, sums);
  }
}

template <int kRows>
GRADRING_INLINE void run_few(const Lane& lane, const Bf16MatmulArguments& g, float* sums) noexcept {
  float* const a = reinterpret_cast<float*>(lane.scratch());
  if (g.trans_b) {
    run_few_dots<kRows>(lane, g, a, sums);
  } else {
    run_few_sums<kRows>(lane, g, a, sums);
  }
}

inline void run_few_rows(const Lane& lane, const Bf16MatmulArguments& g, float* sums) noexcept {
  if constexpr (kFewRows == 1) {
    run_few<1>(lane, g, sums);
  } else {
    switch (g.m) {
      case 1: return run_few<1>(lane, g, sums);
      case 2: return run_few<2>(lane, g, sums);
      case 3: return run_few<3>(lane, g, sums);
      default: return run_few<4>(lane, g, sums);
    }
  }
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

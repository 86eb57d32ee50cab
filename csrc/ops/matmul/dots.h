// Products with few rows of A or few columns of B, where both operands are contiguous along k. They are computed as inner
// products whose vectors run along k: nothing is packed, and every element of a vector does useful work.
#pragma once

#include "ops/matmul/blocked.h"
#include "ops/matmul/row.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kDotRows = 16;  // how many rows of A are multiplied at a time

// Adds up the elements of each of W vectors: afterwards element i of v[0] is the sum of the elements of v[i]. It
// works like a transposition that adds pairs at each step.
template <class T, int kCount, int kStep>
GRADRING_INLINE void horizontal_sums(Vec<T> (&v)[kWidth<T>]) noexcept {
  if constexpr (kCount > 1) {
#pragma GCC unroll 16
    for (int i = 0; i < kCount / 2; ++i) {
      Vec<T> x = v[2 * i], y = v[2 * i + 1];
      exchange<T, kStep>(x, y, std::make_integer_sequence<int, kWidth<T>>{});
      v[i] = x + y;
    }
    horizontal_sums<T, kCount / 2, kStep * 2>(v);
  }
}

// Sets to[i * width + j] to the elementwise sums of the products of row x_i and row y_j; horizontal_sums then adds up their
// elements. A single row x_0 gets two chains of additions per y_j, so that additions overlap.
template <class T, int kX, int kY, int kChains = kX == 1 ? 2 : 1>
GRADRING_INLINE void dot_sums(const T* x, int64_t x_stride, const T* y, int64_t y_stride, int64_t steps,
                              Vec<T>* to) noexcept {
  constexpr int64_t W = kWidth<T>;
  Vec<T> sums[kChains][kX][kY];
#pragma GCC unroll 2
  for (int q = 0; q < kChains; ++q)
#pragma GCC unroll 4
    for (int i = 0; i < kX; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kY; ++j) sums[q][i][j] = Vec<T>{};
  int64_t p = 0;
  for (; p + kChains * W <= steps; p += kChains * W) {
#pragma GCC unroll 2
    for (int q = 0; q < kChains; ++q) {
      Vec<T> row[kX];
#pragma GCC unroll 4
      for (int i = 0; i < kX; ++i) row[i] = load(x + i * x_stride + p + q * W);
#pragma GCC unroll 4
      for (int j = 0; j < kY; ++j) {
        const Vec<T> column = load(y + j * y_stride + p + q * W);
#pragma GCC unroll 4
        for (int i = 0; i < kX; ++i) sums[q][i][j] += row[i] * column;
      }
    }
  }
  for (; p < steps; p += W) {
    const Tail<T> tail(smaller(W, steps - p));
    Vec<T> row[kX];
#pragma GCC unroll 4
    for (int i = 0; i < kX; ++i) row[i] = tail.load(x + i * x_stride + p);
#pragma GCC unroll 4
    for (int j = 0; j < kY; ++j) {
      const Vec<T> column = tail.load(y + j * y_stride + p);
#pragma GCC unroll 4
      for (int i = 0; i < kX; ++i) sums[0][i][j] += row[i] * column;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kX; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kY; ++j) {
      Vec<T> sum = sums[0][i][j];
      if constexpr (kChains == 2) sum += sums[1][i][j];
      to[i * W + j] = sum;
    }
}

template <class T, int kX, int kY, int kChains = kX == 1 ? 2 : 1>
void dot_tile(const T* x, int64_t x_stride, const T* y, int64_t y_stride, int64_t steps, Vec<T>* to) noexcept {
  dot_sums<T, kX, kY, kChains>(x, x_stride, y, y_stride, steps, to);
}

// A row x and W rows y, as tiles of one by four would compute them. The calls of those would take as long as a short row.
template <class T>
void dot_row(const T* x, const T* y, int64_t y_stride, int64_t steps, Vec<T>* to) noexcept {
  constexpr int kY = smaller(kWidth<T>, 4);
  for (int64_t q = 0; q < kWidth<T>; q += kY) dot_sums<T, 1, kY>(x, 0, y + q * y_stride, y_stride, steps, to + q);
}

template <class T>
using DotKernel = void (*)(const T*, int64_t, const T*, int64_t, int64_t, Vec<T>*) noexcept;

// Where small code counts for more, larger tiles are made of tiles of one or two rows x and y.
template <class T, int kX, int kY>
void dot_pieces(const T* x, int64_t x_stride, const T* y, int64_t y_stride, int64_t steps, Vec<T>* to) noexcept {
  constexpr int kChains = kX == 1 ? 2 : 1;
  constexpr DotKernel<T> kPieces[2][2] = {
      {dot_tile<T, 1, 1, kChains>, dot_tile<T, 1, 2, kChains>},
      {dot_tile<T, smaller(kX, 2), 1, kChains>, dot_tile<T, smaller(kX, 2), 2, kChains>}};
  for (int i = 0; i < kX; i += 2)
    for (int j = 0; j < kY; j += 2) {
      kPieces[kX - i > 1][kY - j > 1](x + i * x_stride, x_stride, y + j * y_stride, y_stride, steps,
                                      to + i * kWidth<T> + j);
    }
}

template <class T, int kX, int kY>
constexpr DotKernel<T> dots_of() noexcept {
  if constexpr (kSmallCode && (kX > 2 || kY > 2)) {
    return dot_pieces<T, kX, kY>;
  } else {
    return dot_tile<T, kX, kY>;
  }
}

template <class T>
inline constexpr DotKernel<T> kDots[4][4] = {
    {dots_of<T, 1, 1>(), dots_of<T, 1, 2>(), dots_of<T, 1, 3>(), dots_of<T, 1, 4>()},
    {dots_of<T, 2, 1>(), dots_of<T, 2, 2>(), dots_of<T, 2, 3>(), dots_of<T, 2, 4>()},
    {dots_of<T, 3, 1>(), dots_of<T, 3, 2>(), dots_of<T, 3, 3>(), dots_of<T, 3, 4>()},
    {dots_of<T, 4, 1>(), dots_of<T, 4, 2>(), dots_of<T, 4, 3>(), dots_of<T, 4, 4>()},
};

// Computes C[i : i + rows, j : j + columns]; rows <= kDotRows, columns <= width. b holds the columns of op(B) as rows.
template <class T>
GRADRING_INLINE void dot_block(const MatmulArguments<T>& g, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t i,
                               int64_t rows, int64_t j, int64_t columns, T* sums) noexcept {
  constexpr int64_t W = kWidth<T>;
  Vec<T> partial[kDotRows][W];
  const bool whole_row = !kSmallCode && rows == 1 && columns == W;
  if (whole_row) dot_row(a + i * lda, b + j * ldb, ldb, g.k, partial[0]);
  for (int64_t q = whole_row ? W : 0; q < columns; q += 4) {
    const int64_t abreast = smaller(4, columns - q);
    for (int64_t r = 0; r < rows; r += 4) {
      const int64_t down = smaller(4, rows - r);
      kDots<T>[down - 1][abreast - 1](a + (i + r) * lda, lda, b + (j + q) * ldb, ldb, g.k, &partial[r][q]);
    }
  }
  const Tail<T> tail(columns);
  for (int64_t r = 0; r < rows; ++r) {
    Vec<T> v[W];
#pragma GCC unroll 16
    for (int64_t l = 0; l < W; ++l) v[l] = l < columns ? partial[r][l] : Vec<T>{};
    horizontal_sums<T, static_cast<int>(W), 1>(v);
    T* const c = g.c + (i + r) * g.ldc + j;
    Vec<T> sum = v[0];
    if (g.epilogue.accumulate) sum += tail.load(c);
    if (g.epilogue.bias) sum += tail.load(g.epilogue.bias + j);
    tail.store(c, sum);
  }
  if (needs_finish(g.epilogue) || g.epilogue.activation == Activation::kRelu) {
    finish(g, Block{i, rows, j, columns}, sums, false);
  }
  hand_over(g, Block{i, rows, j, columns});
}

// Whether to use inner products for few columns. op(B) is transposed first, unless its columns are contiguous.
template <class T>
GRADRING_INLINE bool narrow_by_dots(const MatmulArguments<T>& g) noexcept {
  return !g.trans_a && g.m > 1 && g.n <= kWidth<T> * 3 / 4 && g.k >= 16 * kWidth<T>;
}

// Whether to use inner products for few rows. A is transposed first, unless its rows are contiguous.
template <class T>
GRADRING_INLINE bool short_by_dots(const MatmulArguments<T>& g) noexcept {
  return g.trans_b && g.m <= kDotRows && g.k >= 4 * kWidth<T>;
}

// The distance between transposed rows, in elements: whole vectors, and no multiple of half a page, because a block's
// rows would then fall into the same few sets of the first cache.
template <class T>
GRADRING_INLINE int64_t turned_stride(int64_t k) noexcept {
  const int64_t stride = divide_up(k, kWidth<T>) * kWidth<T>;
  return stride * static_cast<int64_t>(sizeof(T)) % 2048 == 0 ? stride + kWidth<T> : stride;
}

// Sets `to` to the transpose of `from` (rows x columns); to_stride is at least rows, rounded up to vectors.
template <class T>
GRADRING_INLINE void turn(const T* from, int64_t stride, int64_t rows, int64_t columns, T* to,
                          int64_t to_stride) noexcept {
  for (int64_t p = 0; p < rows; p += kWidth<T>) {
    pack_transposed(from + p * stride, stride, smaller(kWidth<T>, rows - p), columns, to + p, to_stride);
  }
}

template <class T>
void run_dots(const Lane& lane, const MatmulArguments<T>& g, T* sums) noexcept {
  constexpr int64_t W = kWidth<T>;
  const T* a = g.a;
  const T* b = g.b;
  int64_t lda = g.lda, ldb = g.ldb;
  T* turned = reinterpret_cast<T*>(lane.scratch());
  if (g.trans_a && !(g.m == 1 && g.lda == 1)) {
    lda = turned_stride<T>(g.k);
    turn(g.a, g.lda, g.k, g.m, turned, lda);
    a = turned;
    turned += lda * g.m;
  }
  if (!g.trans_b) {
    ldb = turned_stride<T>(g.k);
    turn(g.b, g.ldb, g.k, g.n, turned, ldb);
    b = turned;
  }
  const int64_t blocks = divide_up(g.m, kDotRows);
  if (blocks == 1) {
    const Range part = split(lane, g.n, g.n < lane.count * W ? 4 : W);
    for (int64_t j = part.begin; j < part.end; j += W) {
      dot_block(g, a, lda, b, ldb, 0, g.m, j, smaller(W, part.end - j), sums);
    }
    return;
  }
  const Range part = split(lane, blocks);
  for (int64_t block = part.begin; block < part.end; ++block) {
    const int64_t i = block * kDotRows;
    for (int64_t j = 0; j < g.n; j += W) {
      dot_block(g, a, lda, b, ldb, i, smaller(kDotRows, g.m - i), j, smaller(W, g.n - j),
                sums ? sums + block * g.n : nullptr);
    }
  }
}

template <class T>
GRADRING_INLINE size_t dots_scratch(const MatmulArguments<T>& g) noexcept {
  const int64_t rows = (g.trans_a ? g.m : 0) + (g.trans_b ? 0 : g.n);
  return static_cast<size_t>(turned_stride<T>(g.k) * rows) * sizeof(T);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

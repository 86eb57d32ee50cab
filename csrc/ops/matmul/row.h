// Products with one row: c = a B, where B is not packed. B is read once, at the speed of the memory (or cache) it is
// in.
#pragma once

#include "ops/matmul/blocked.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

inline constexpr int64_t kNarrowVectors = 8;  // up to so many vectors of columns are summed in registers
inline constexpr int kRowChains = 4;          // independent sums per column, to hide the latency of additions

// Sums columns [j, j + count) in registers; chain q sums the steps p with p % kRowChains == q.
template <class T, int kVectors>
GRADRING_INLINE void row_narrow(const MatmulArguments<T>& g, int64_t a_stride, int64_t j, int64_t count) noexcept {
  constexpr int64_t W = kWidth<T>;
  const Tail<T> tail(count - (kVectors - 1) * W);
  Vec<T> sums[kRowChains][kVectors] = {};
  const auto add = [&](int chain, int64_t p) __attribute__((always_inline)) {
    const T factor = g.a[p * a_stride];
    const T* const b = g.b + p * g.ldb + j;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors - 1; ++v) sums[chain][v] += factor * load(b + v * W);
    sums[chain][kVectors - 1] += factor * tail.load(b + (kVectors - 1) * W);
  };
  int64_t p = 0;
  for (; p + kRowChains <= g.k; p += kRowChains) {
#pragma GCC unroll 4
    for (int q = 0; q < kRowChains; ++q) add(q, p + q);
  }
  for (; p < g.k; ++p) add(0, p);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    Vec<T> sum = (sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v]);
    T* const c = g.c + j + v * W;
    if (v < kVectors - 1) {
      store(c, g.epilogue.accumulate ? sum + load(c) : sum);
    } else {
      tail.store(c, g.epilogue.accumulate ? sum + tail.load(c) : sum);
    }
  }
}

// How many elements lie between p and the next multiple of a vector's size in memory.
template <class T>
GRADRING_INLINE int64_t to_alignment(const T* p) noexcept {
  constexpr int64_t W = kWidth<T>;
  return (W - static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) / sizeof(T)) % W) % W;
}

// Sums columns [begin, end) in c itself, kR rows of B at a time, in the rows' order for any kR. A load across two cache
// lines takes twice as long: with kAlign, if all rows are aligned alike, vectors begin at a line.
template <class T, int kR, bool kAlign>
void row_wide(const MatmulArguments<T>& g, int64_t a_stride, int64_t begin, int64_t end) noexcept {
  constexpr int64_t W = kWidth<T>;
  const int64_t first = kAlign ? smaller(end, begin + to_alignment(g.b + begin)) : begin;
  const int64_t whole = first + (end - first) / W * W;
  const Tail<T> head(first - begin > 0 ? first - begin : W), tail(end - whole > 0 ? end - whole : W);
  bool from_zero = !g.epilogue.accumulate;
  int64_t p = 0;
  for (; p + kR <= g.k; p += kR) {
    T factor[kR];
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) factor[r] = g.a[(p + r) * a_stride];
    const T* const b = g.b + p * g.ldb;
    const auto add_part = [&](const Tail<T>& part, int64_t j) __attribute__((always_inline)) {
      Vec<T> sum = from_zero ? Vec<T>{} : part.load(g.c + j);
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) sum += factor[r] * part.load(b + r * g.ldb + j);
      part.store(g.c + j, sum);
    };
    if (kAlign && begin < first) add_part(head, begin);
    for (int64_t j = first; j < whole; j += W) {
      Vec<T> sum = from_zero ? Vec<T>{} : load(g.c + j);
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) {
        sum += factor[r] * load(b + r * g.ldb + j);
      }
      store(g.c + j, sum);
    }
    if (whole < end) add_part(tail, whole);
    from_zero = false;
  }
  for (; p < g.k || from_zero; ++p) {
    const T factor = p < g.k ? g.a[p * a_stride] : T(0);
    const T* const b = g.b + p * g.ldb;
    for (int64_t j = begin; j < end; j += W) {
      const Tail<T> part(smaller(W, end - j));
      Vec<T> sum = from_zero ? Vec<T>{} : part.load(g.c + j);
      if (p < g.k) sum += factor * part.load(b + j);
      part.store(g.c + j, sum);
    }
    from_zero = false;
  }
}

// Applies the rest of the epilogue to one row.
template <class T>
void finish_row(const MatmulArguments<T>& g, int64_t row, int64_t begin, int64_t end, T* sums) noexcept {
  if (g.epilogue.bias) {
    for (int64_t j = begin; j < end; j += kWidth<T>) {
      const Tail<T> part(smaller(kWidth<T>, end - j));
      T* const c = g.c + row * g.ldc + j;
      part.store(c, part.load(c) + part.load(g.epilogue.bias + j));
    }
  }
  if (needs_finish(g.epilogue) || g.epilogue.activation == Activation::kRelu) {
    finish(g, Block{row, 1, begin, end - begin}, sums, false);
  }
  hand_over(g, Block{row, 1, begin, end - begin});
}

// A lane's columns. Many columns are summed in c itself, which each pass over a few rows of B reads and writes. Two lanes that
// share a cache line of c would take it from each other in each pass, so there a lane's columns begin where a line does.
template <class T>
GRADRING_INLINE Range row_part(const Lane& lane, const MatmulArguments<T>& g, bool wide) noexcept {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  if (!wide) return split(lane, g.n, kWidth<T>);
  const int64_t lead = static_cast<int64_t>(reinterpret_cast<uintptr_t>(g.c) / sizeof(T)) % kLine;
  const Range part = split(lane, lead + g.n, kLine);
  return {larger(part.begin - lead, 0), part.end - lead};
}

template <class T>
void run_row(const Lane& lane, const MatmulArguments<T>& g, T* sums) noexcept {
  constexpr int64_t W = kWidth<T>;
  const int64_t a_stride = g.trans_a ? g.lda : 1;
  const bool wide = g.n > kNarrowVectors * W;
  const Range part = row_part(lane, g, wide);
  if (part.begin >= part.end) return;
  if (!wide) {
    int64_t j = part.begin;
    if constexpr (kVectorRegisters == 32) {
      for (; part.end - j > 2 * W; j += 4 * W) {
        if (part.end - j > 3 * W) {
          row_narrow<T, 4>(g, a_stride, j, smaller(4 * W, part.end - j));
        } else {
          row_narrow<T, 3>(g, a_stride, j, part.end - j);
        }
      }
    }
    for (; part.end - j > W; j += 2 * W) row_narrow<T, 2>(g, a_stride, j, smaller(2 * W, part.end - j));
    if (j < part.end) row_narrow<T, 1>(g, a_stride, j, part.end - j);
  } else {
    constexpr int64_t kChunk = 8192 / static_cast<int64_t>(sizeof(T));
    // Rows that lie whole pages apart compete for the eight lines of one set of the first cache.
    const bool crowded = g.ldb * static_cast<int64_t>(sizeof(T)) % 4096 == 0;
    for (int64_t j = part.begin; j < part.end; j += kChunk) {
      const int64_t end = smaller(part.end, j + kChunk);
      if constexpr (kSmallCode) {
        row_wide<T, 4, false>(g, a_stride, j, end);
      } else if (crowded) {
        row_wide<T, 4, true>(g, a_stride, j, end);
      } else if (g.ldb % W == 0) {
        row_wide<T, 8, true>(g, a_stride, j, end);
      } else {
        row_wide<T, 8, false>(g, a_stride, j, end);
      }
    }
  }
  finish_row(g, 0, part.begin, part.end, sums);
}

}  // namespace gradring::GRADRING_ISA_NAMESPACE

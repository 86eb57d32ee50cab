// Merges the moments of several parts of a batch into those of the whole batch, and moves running moments towards them.
//
// Two parts of a and b rows, with the means m and the sums of squared differences q, are together a + b rows with the mean
// m_a + d b / (a + b) and the sum q_a + q_b + d d a b / (a + b), where d = m_b - m_a (Chan, Golub and LeVeque 1979). Parts are
// merged in the binary tree of ops/reduce_update, in double, so the bits do not depend on who has computed which parts.
#pragma once

#include <cstdint>

namespace gradring {

struct PartMoments {
  double rows = 0, mean = 0, squares = 0;  // squares: of the differences from the mean
};

constexpr PartMoments merged(const PartMoments& a, const PartMoments& b) noexcept {
  if (b.rows == 0) return a;
  if (a.rows == 0) return b;
  const double rows = a.rows + b.rows, apart = b.mean - a.mean;
  return {rows, a.mean + apart * (b.rows / rows), a.squares + b.squares + apart * apart * (a.rows * b.rows / rows)};
}

// The moments of the parts first, ..., first + count - 1, of which part(i) gives one.
template <class F>
constexpr PartMoments merge_parts(int64_t first, int64_t count, const F& part) noexcept {
  if (count <= 1) return count == 1 ? part(first) : PartMoments{};
  int64_t left = 1;
  while (left * 2 < count) left *= 2;
  return merged(merge_parts(first, left, part), merge_parts(first + left, count - left, part));
}

// `parts` has `count` rows of `stride` numbers: how many rows of the batch the part has and, from `mean_at` and `variance_at` on,
// the part's mean and variance (without Bessel's correction) of each column. A part stands for `each` times as many numbers per
// column as it has rows of the batch.
template <class T>
struct MergeMomentsArguments {
  const T* parts = nullptr;
  int64_t count = 0, stride = 0, mean_at = 0, variance_at = 0;
  int64_t columns = 0;
  double each = 1, momentum = 0.1;
  T* running_mean = nullptr;
  T* running_var = nullptr;
};

// Columns [begin, end).
template <class T>
void merge_moments(const MergeMomentsArguments<T>& g, int64_t begin, int64_t end) noexcept {
  for (int64_t j = begin; j < end; ++j) {
    const PartMoments all = merge_parts(0, g.count, [&](int64_t p) {
      const T* part = g.parts + p * g.stride;
      const double rows = static_cast<double>(part[0]) * g.each;
      return PartMoments{rows, static_cast<double>(part[g.mean_at + j]),
                         static_cast<double>(part[g.variance_at + j]) * rows};
    });
    if (all.rows == 0) return;
    const double variance = all.squares / (all.rows > 1 ? all.rows - 1 : 1);
    const auto move = [&](T* running, double to) {
      *running = static_cast<T>(static_cast<double>(*running) * (1 - g.momentum) + to * g.momentum);
    };
    move(g.running_mean + j, all.mean);
    move(g.running_var + j, variance);
  }
}

}  // namespace gradring

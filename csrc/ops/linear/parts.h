// A product summed in two parts: each half of the lanes sums over one half of the inner dimension. So a lane reads only
// those rows of B that it updates later in the step, and they stay in its cache.
#pragma once

#include "ops/matmul/matmul.h"
#include "ops/sum_parts/sum_parts.h"

namespace gradring {

inline constexpr int64_t kAtOnce = 1024;  // the largest half of k that the kernel adds in one chain

// Makes the product over one half of k. Bias and activation follow at the end.
template <class T>
MatmulArguments<T> part_of(const MatmulArguments<T>& whole, int part, T* c) noexcept {
  MatmulArguments<T> p = whole;
  const int64_t begin = part == 0 ? 0 : whole.k / 2;
  p.k = part == 0 ? whole.k / 2 : whole.k - whole.k / 2;
  if (whole.a) p.a = whole.a + (whole.trans_a ? begin * whole.lda : begin);
  if (whole.b) p.b = whole.b + (whole.trans_b ? begin : begin * whole.ldb);
  p.c = c;
  p.ldc = whole.n;
  p.epilogue = {};
  return p;
}

// `parts` has room for 2 m n elements. The epilogue may have a bias, and relu as its activation.
template <class T>
void run_parts(const Lane& lane, const MatmulArguments<T>& p, T* parts) noexcept {
  if (lane.count == 1 && p.k <= kAtOnce) {
    // Add the second part to the first, as the kernel adds one block of steps to the next.
    matmul(lane, part_of(p, 0, p.c));
    MatmulArguments<T> second = part_of(p, 1, p.c);
    second.epilogue = p.epilogue;
    second.epilogue.accumulate = true;
    return matmul(lane, second);
  }
  const int first = (lane.count + 1) / 2;  // how many lanes compute part 0
  for (int part = 0; part < 2; ++part) {
    Lane own = lane;
    if (lane.count > 1) {
      if ((lane.index >= first) != (part == 1)) continue;
      own.index = part == 0 ? lane.index : lane.index - first;
      own.count = part == 0 ? first : lane.count - first;
    }
    matmul(own, part_of(p, part, parts + part * p.m * p.n));
  }
  lane.barrier();
  SumPartsArguments<T> sum;
  sum.rows = p.m;
  sum.columns = p.n;
  sum.first = parts;
  sum.second = parts + p.m * p.n;
  sum.bias = p.epilogue.bias;
  sum.relu = p.epilogue.activation == Activation::kRelu;
  sum.y = p.c;
  sum_parts(lane, sum);
}

}  // namespace gradring

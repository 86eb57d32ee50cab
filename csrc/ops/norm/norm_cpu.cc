#include "ops/math/reduce.h"
#include "ops/norm/kernels.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

GRADRING_INLINE Vec<double> load_wide(const double* x) noexcept { return load<double>(x); }
GRADRING_INLINE Vec<double> load_wide(const float* x) noexcept {
  typedef float Half __attribute__((vector_size(GRADRING_VECTOR_BYTES / 2)));
  Half half;
  __builtin_memcpy(&half, x, sizeof half);
  return __builtin_convertvector(half, Vec<double>);
}

template <class T>
double block_sum(const T* x, int64_t n) noexcept {
  constexpr int64_t W = kWidth<double>;
  Vec<double> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const Vec<double> v = load_wide(x + i + k * W);
      sums[k] += v * v;
    }
  }
  double rest = 0;
  for (; i < n; ++i) rest += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return horizontal_sum<double>((sums[0] + sums[1]) + (sums[2] + sums[3]))[0] + rest;
}

template <class T>
void run(const Lane& lane, const SumOfSquaresArguments<T>& g) noexcept {
  const int64_t blocks = (g.n + kNormBlock - 1) / kNormBlock;
  if (blocks <= 1) {
    if (lane.index == 0) *g.result = block_sum<T>(g.x, g.n);
    return;
  }
  auto* partial = reinterpret_cast<double*>(lane.shared_scratch());
  const Range mine = split(lane, blocks, 8);
  for (int64_t b = mine.begin; b < mine.end; ++b) {
    const int64_t left = g.n - b * kNormBlock;
    partial[b] = block_sum<T>(g.x + b * kNormBlock, left < kNormBlock ? left : kNormBlock);
  }
  if (lane.count > 1) lane.barrier();
  if (lane.index != 0) return;
  double sum = 0;
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b];
  *g.result = sum;
}

}  // namespace

extern const SumOfSquaresKernel sum_of_squares_kernel;
const SumOfSquaresKernel sum_of_squares_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

#include "ops/largest/kernels.h"
#include "ops/math/math.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// Magnitudes are ordered as their bits are, read as integers, and NaNs come after infinity.
template <class T>
T block_largest(const T* x, int64_t n) noexcept {
  using Int = typename Float<T>::Int;
  constexpr int kW = kWidth<T>;
  constexpr Int kMagnitude = static_cast<Int>(~(Int(1) << (sizeof(T) * 8 - 1)));
  const IntVec<T> magnitude = broadcast_bits<T>(kMagnitude);
  IntVec<T> most[4] = {};
  int64_t i = 0;
  for (; i + 4 * kW <= n; i += 4 * kW) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      IntVec<T> bits;
      __builtin_memcpy(&bits, x + i + k * kW, sizeof bits);
      bits &= magnitude;
      most[k] = bits > most[k] ? bits : most[k];
    }
  }
  for (; i + kW <= n; i += kW) {
    IntVec<T> bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    bits &= magnitude;
    most[0] = bits > most[0] ? bits : most[0];
  }
#pragma GCC unroll 3
  for (int k = 1; k < 4; ++k) most[0] = most[k] > most[0] ? most[k] : most[0];
  Int all = 0;
  for (int k = 0; k < kW; ++k) all = most[0][k] > all ? most[0][k] : all;
  for (; i < n; ++i) {
    Int bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    bits &= kMagnitude;
    all = bits > all ? bits : all;
  }
  T result;
  __builtin_memcpy(&result, &all, sizeof result);
  return result;
}

template <class T>
void run(const Lane& lane, const LargestArguments<T>& g) noexcept {
  const Range blocks = split(lane, largest_blocks(g.n));
  for (int64_t b = blocks.begin; b < blocks.end; ++b) {
    const int64_t first = b * kLargestBlock, left = g.n - first;
    g.y[b] = block_largest<T>(g.x + first, left < kLargestBlock ? left : kLargestBlock);
  }
}

}  // namespace

extern const LargestKernel largest_kernel;
const LargestKernel largest_kernel = {run<float>, run<double>};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

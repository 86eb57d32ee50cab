#include "ops/peak/kernels.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// At least the latency times the throughput of known cores, but few enough for 16 registers.
constexpr int kChains = 12;

// The numbers are arguments, because a compiler that knows them may find a fixed point and remove the chain.
template <class T>
float work(int64_t rounds, const float* numbers) noexcept {
  Vec<T> sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = broadcast<T>(static_cast<T>(numbers[0]) * static_cast<T>(i));
  const Vec<T> factor = broadcast<T>(static_cast<T>(numbers[1])), term = broadcast<T>(static_cast<T>(numbers[2]));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + term;
  }
  Vec<T> sum{};
  for (int i = 0; i < kChains; ++i) sum += sums[i];
  return static_cast<float>(sum[0]);
}

}  // namespace

extern const PeakKernels peak_kernels;
const PeakKernels peak_kernels = {{2 * kChains * kWidth<float>, work<float>},
                                  {2 * kChains * kWidth<double>, work<double>}};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

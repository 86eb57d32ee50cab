#include "ops/peak/kernels.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

// At least the latency times the throughput of known cores, but few enough for 16 registers.
constexpr int kChains = 12;

// The numbers are arguments, because a compiler that knows them may find a fixed point and remove the chain.
float work(int64_t rounds, const float* numbers) noexcept {
  Vec<float> sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = broadcast<float>(numbers[0] * static_cast<float>(i));
  const Vec<float> factor = broadcast<float>(numbers[1]), term = broadcast<float>(numbers[2]);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + term;
  }
  Vec<float> sum{};
  for (int i = 0; i < kChains; ++i) sum += sums[i];
  return sum[0];
}

}  // namespace

extern const PeakKernels peak_kernels;
const PeakKernels peak_kernels = {2 * kChains * kWidth<float>, work};

}  // namespace gradring::GRADRING_ISA_NAMESPACE

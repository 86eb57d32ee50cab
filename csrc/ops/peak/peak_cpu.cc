#include "ops/peak/kernels.h"
#include "ops/simd.h"

namespace gradring::GRADRING_ISA_NAMESPACE {

namespace {

constexpr int kChains = 12;  // latency times throughput of every core so far, and fits 16 registers

float work(int64_t rounds) noexcept {
  Vec<float> sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = broadcast<float>(static_cast<float>(i));
  Vec<float> factor = broadcast<float>(0.999999f), term = broadcast<float>(1e-6f);
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

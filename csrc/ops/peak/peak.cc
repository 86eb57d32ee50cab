#include "ops/peak/peak.h"

#include <chrono>
#include <vector>

#include "ops/peak/kernels.h"
#include "runtime/team.h"

namespace gradring {

double measure_peak_flops(int lanes) {
  constexpr int64_t kRounds = 200000;
  constexpr int kRepeats = 25;
  constexpr float kNumbers[] = {1.0f, 0.999999f, 1e-6f};
  const PeakKernels& kernels = GRADRING_KERNELS(peak_kernels);
  Team team(lanes);
  std::vector<float> results(static_cast<size_t>(lanes));
  double best = 0;
  int ran = 1;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    team.run(lanes, [&](const Lane& lane) {
      results[static_cast<size_t>(lane.index)] = kernels.work(kRounds, kNumbers);
      if (lane.index == 0) ran = lane.count;
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    const double rate = static_cast<double>(kernels.operations) * kRounds * ran / seconds.count();
    if (rate > best) best = rate;
  }
  return best;
}

}  // namespace gradring

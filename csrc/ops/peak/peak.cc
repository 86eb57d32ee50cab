#include "ops/peak/peak.h"

#include <algorithm>
#include <ctime>
#include <vector>

#include "ops/peak/kernels.h"
#include "runtime/team.h"

namespace gradring {

namespace {

double cpu_seconds() noexcept {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

double measure_peak_flops(int lanes, bool wide) {
  constexpr int64_t kRounds = 200000;
  constexpr int kRepeats = 25;
  constexpr float kNumbers[] = {1.0f, 0.999999f, 1e-6f};
  const PeakKernels& kernels = GRADRING_KERNELS(peak_kernels);
  const PeakKernel& kernel = wide ? kernels.f64 : kernels.f32;
  Team team(lanes);
  std::vector<float> results(static_cast<size_t>(lanes));
  std::vector<double> seconds(static_cast<size_t>(lanes));
  std::vector<double> rates;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    int ran = 1;
    team.run(lanes, [&](const Lane& lane) {
      // Divide by the CPU time of the lane's own thread, because another process on its core does not change the core's peak.
      const double begin = cpu_seconds();
      results[static_cast<size_t>(lane.index)] = kernel.work(kRounds, kNumbers);
      seconds[static_cast<size_t>(lane.index)] = cpu_seconds() - begin;
      if (lane.index == 0) ran = lane.count;
    });
    double rate = 0;
    for (int lane = 0; lane < ran; ++lane) {
      rate += static_cast<double>(kernel.operations) * kRounds / seconds[static_cast<size_t>(lane)];
    }
    rates.push_back(rate);
  }
  // Take the median and not the best, because a clock that is read late or early makes a few of many measurements too good.
  const auto middle = rates.begin() + kRepeats / 2;
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

}  // namespace gradring

// The rates of the tile unit and of vdpbf16ps, with which products are compared.
#include <algorithm>
#include <ctime>
#include <vector>

#include "ops/tiles/measured_product.h"
#include "ops/tiles/tiles.h"
#include "runtime/team.h"

namespace gradring {

namespace {

constexpr int kTimes = 400;
constexpr int kRepeats = 15;
constexpr double kOperations = MeasuredProduct::kOperations * kTimes;

double cpu_seconds() noexcept {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The seconds of this thread's own time that the products take: another process on its core does not change the peak.
double run(const TileFunctions& unit) noexcept {
  const MeasuredProduct product;
  unit.configure(kTileSide);
  unit.multiply[0](product.work);
  const double begin = cpu_seconds();
  for (int time = 0; time < kTimes; ++time) unit.multiply[0](product.work);
  const double seconds = cpu_seconds() - begin;
  unit.release();
  return seconds;
}

}  // namespace

double measure_tile_flops(int lanes, bool dots) {
  const TileFunctions* const unit = dots ? dot_tiles() : unit_tiles();
  if (!unit) return 0;
  Team team(lanes);
  std::vector<double> seconds(static_cast<size_t>(lanes));
  std::vector<double> rates;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    int ran = 1;
    team.run(lanes, [&](const Lane& lane) {
      seconds[static_cast<size_t>(lane.index)] = run(*unit);
      if (lane.index == 0) ran = lane.count;
    });
    double rate = 0;
    for (int lane = 0; lane < ran; ++lane) rate += kOperations / seconds[static_cast<size_t>(lane)];
    rates.push_back(rate);
  }
  const auto middle = rates.begin() + kRepeats / 2;
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

}  // namespace gradring

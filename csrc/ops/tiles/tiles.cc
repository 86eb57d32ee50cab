// | variable  | writer        | readers      | order   | why                        |
// |-----------|---------------|--------------|---------|----------------------------|
// | emulation | emulate_tiles | active_tiles | relaxed | a number that stands alone |
#include "ops/tiles/tiles.h"

#include <atomic>

#include "ops/peak/kernels.h"
#include "ops/tiles/kernels.h"
#include "ops/tiles/tiles_amx.h"
#include "runtime/clock.h"
#include "runtime/tile_unit.h"

namespace gradring {

namespace {

std::atomic<bool> emulation{false};

constexpr int64_t kMeasuredBlocks = 8;  // 32 x 256 of A and 256 x 32 of B: 32 KiB, which the first cache holds
struct Operands {
  alignas(64) uint16_t a[2 * kMeasuredBlocks * kTileElements];
  alignas(64) uint16_t b[2 * kMeasuredBlocks * kTileElements];
  alignas(64) float c[4 * kTileSide * kTileSide];
};

// Operations per nanosecond: the best of a few short runs, because other work on the core only makes them slower.
template <class Run>
double best_rate(double operations, const Run& run) noexcept {
  double best = 0;
  for (int repeat = 0; repeat < 8; ++repeat) {
    const int64_t begin = monotonic_ns();
    run();
    const int64_t taken = monotonic_ns() - begin;
    const double rate = operations / static_cast<double>(taken > 0 ? taken : 1);
    if (rate > best) best = rate;
  }
  return best;
}

double measure() noexcept {
  const TileFunctions* const unit = unit_tiles();
  if (!unit) return 0;
  Operands operands{};
  for (uint16_t& x : operands.a) x = 0x3f80;
  for (uint16_t& x : operands.b) x = 0x3f80;
  TileBlockWork work;
  work.a = operands.a, work.b = operands.b;
  work.a_down = work.b_across = kMeasuredBlocks * kTileElements;
  work.step_blocks = kMeasuredBlocks;
  work.c = operands.c, work.ldc = 2 * kTileSide;
  constexpr int kTimes = 4;
  constexpr double kOperations = 2.0 * 32 * 32 * 32 * kMeasuredBlocks * kTimes;
  unit->configure(kTileSide);
  const double tiles = best_rate(kOperations, [&] {
    for (int time = 0; time < kTimes; ++time) unit->multiply[0](work);
  });
  unit->release();
  for (const float sum : operands.c) {
    if (sum != static_cast<float>(kTileDepth * kMeasuredBlocks)) return 0;  // an emulator that knows it only by name
  }
  const PeakKernels& peak = GRADRING_KERNELS(peak_kernels);
  constexpr int64_t kRounds = 1000;
  constexpr float kNumbers[] = {1.0f, 0.999999f, 1e-6f};
  volatile float kept = 0;
  const double adds =
      best_rate(static_cast<double>(kRounds * peak.operations), [&] { kept = peak.work(kRounds, kNumbers); });
  return tiles / adds;
}

}  // namespace

const TileFunctions* unit_tiles() noexcept {
#ifdef GRADRING_HAS_AMX
  return tile_unit() == TileUnit::kPermitted ? &amx_tiles : nullptr;
#else
  return nullptr;
#endif
}

const TileFunctions& emulated_tiles() noexcept { return GRADRING_KERNELS(emulated_tile_functions); }

const TileFunctions& active_tiles() noexcept {
  const TileFunctions* const unit = emulation.load(std::memory_order_relaxed) ? nullptr : unit_tiles();
  return unit ? *unit : emulated_tiles();
}

void emulate_tiles(bool on) noexcept { emulation.store(on, std::memory_order_relaxed); }

double tile_unit_advantage() noexcept {
  static const double advantage = measure();
  return advantage;
}

}  // namespace gradring

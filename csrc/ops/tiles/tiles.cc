// | variable  | writer        | readers      | order   | why                        |
// |-----------|---------------|--------------|---------|----------------------------|
// | emulation | emulate_tiles | active_tiles | relaxed | a number that stands alone |
#include "ops/tiles/tiles.h"

#include <atomic>
#include <cstring>

#include "ops/peak/kernels.h"
#include "ops/tiles/kernels.h"
#include "ops/tiles/measured_product.h"
#include "ops/tiles/tiles_amx.h"
#include "ops/tiles/tiles_dot.h"
#include "runtime/clock.h"
#include "runtime/tile_unit.h"

namespace gradring {

namespace {

std::atomic<bool> emulation{false};

// Raises `best`, in operations per nanosecond, if this run is faster.
template <class Run>
void try_faster(double operations, double& best, const Run& run) noexcept {
  const int64_t begin = monotonic_ns();
  run();
  const int64_t taken = monotonic_ns() - begin;
  const double rate = operations / static_cast<double>(taken > 0 ? taken : 1);
  if (rate > best) best = rate;
}

// How many times as many operations per second these functions do as multiply-adds of the highest level, whichever is active.
double measure(const TileFunctions* unit) noexcept {
  if (!unit) return 0;
  MeasuredProduct product;
  product.fill();
  constexpr int kTimes = 4, kTries = 12;
  constexpr double kOperations = MeasuredProduct::kOperations * kTimes;
#ifdef GRADRING_HAS_AMX
  const PeakKernel& peak = isa_avx512::peak_kernels.f32;
#else
  const PeakKernel& peak = GRADRING_KERNELS(peak_kernels).f32;
#endif
  constexpr int64_t kRounds = 1000;
  constexpr float kNumbers[] = {1.0f, 0.999999f, 1e-6f};
  volatile float kept = 0;
  // Both sides take turns, and the best try of each counts: other work on the core only makes a try slower, and it would have to
  // disturb every try of one side to change the answer.
  double tiles = 0, adds = 0;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    unit->configure(kTileSide);
    unit->multiply[0](product.work);  // A unit that begins to work is slow at first.
    try_faster(kOperations, tiles, [&] {
      for (int time = 0; time < kTimes; ++time) unit->multiply[0](product.work);
    });
    unit->release();
    try_faster(static_cast<double>(kRounds * peak.operations), adds, [&] { kept = peak.work(kRounds, kNumbers); });
  }
  return tiles / adds;
}

}  // namespace

bool sums_are_right(const TileFunctions& functions) noexcept {
  MeasuredProduct product, expected;
  const auto multiply = [](const TileFunctions& by, MeasuredProduct& of) {
    of.fill();
    by.configure(kTileSide);
    by.multiply[0](of.work);
    by.release();
  };
  multiply(functions, product);
  multiply(emulated_tiles(), expected);
  return std::memcmp(product.c, expected.c, sizeof product.c) == 0;
}

const TileFunctions* unit_tiles() noexcept {
#ifdef GRADRING_HAS_AMX
  // An emulator may report the unit and yet compute wrong sums.
  static const bool right = tile_unit() == TileUnit::kPermitted && sums_are_right(amx_tiles);
  return right ? &amx_tiles : nullptr;
#else
  return nullptr;
#endif
}

const TileFunctions* dot_tiles() noexcept {
#ifdef GRADRING_HAS_DOT
  static const bool right = has_avx512_bf16() && sums_are_right(avx512_bf16_tiles);
  return right ? &avx512_bf16_tiles : nullptr;
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
  static const double advantage = measure(unit_tiles());
  return advantage;
}

double dot_advantage() noexcept {
  static const double advantage = measure(dot_tiles());
  return advantage;
}

}  // namespace gradring

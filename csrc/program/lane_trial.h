// LaneTrial: finds out, during real training steps, whether a program runs faster on one lane or on all. A separate trial run
// would not show it, because lanes are slowed down by writing what other lanes read, and a run that changes no parameter writes
// little. The results have the same bits either way, so a trial costs only the time of its slower steps.
#pragma once

#include <cstdint>

namespace gradring {

class LaneTrial {
 public:
  LaneTrial() = default;  // nothing to find out
  explicit LaneTrial(int all) noexcept : all_(all), turns_(all > 1 ? 0 : kTurns) {}

  bool done() const noexcept { return turns_ >= kTurns; }
  // How many lanes the next step should run on.
  int lanes() const noexcept {
    if (done()) return best_[1] < best_[0] ? all_ : 1;
    return turns_ % 2 == 0 ? all_ : 1;
  }

  // Reports how long a step on lanes() took, in any unit.
  void note(uint64_t took) noexcept {
    if (done()) return;
    // Ignore the first step of a turn, because the steps with the other number of lanes left the caches in another state.
    uint64_t& best = best_[turns_ % 2 == 0 ? 1 : 0];
    if (in_turn_ > 0 && took < best) best = took;
    if (++in_turn_ < kSteps) return;
    in_turn_ = 0;
    ++turns_;
    const uint64_t less = best_[0] < best_[1] ? best_[0] : best_[1], more = best_[0] < best_[1] ? best_[1] : best_[0];
    if (turns_ % 2 == 0 && more > less + less / 4) turns_ = kTurns;  // the difference is clear enough to stop
  }

 private:
  static constexpr int kTurns = 8;
  static constexpr int kSteps = 4;

  int all_ = 1;
  int turns_ = kTurns;
  int in_turn_ = 0;
  uint64_t best_[2] = {UINT64_MAX, UINT64_MAX};  // the best time on one lane, and on all
};

}  // namespace gradring

#include "loader/tuner.h"

#include <algorithm>

namespace gradring {

namespace {

constexpr double kStarved = 0.05;  // of the time, the consumer waits
constexpr double kBusy = 0.7;      // of the active workers' time, they work
constexpr double kIdle = 0.6;      // of what one fewer could give, they work
constexpr double kWorthwhile = 1.03;
constexpr int kTrialWindows = 2;
constexpr uint32_t kLongestRest = 512;

}  // namespace

uint32_t Tuner::look(const TunerWindow& w) noexcept {
  if (w.seconds <= 0) return active_;
  const double rate = w.batches / w.seconds;
  if (rest_ > 0) --rest_;
  if (trial_ > 0) {
    if (--trial_ > 0) return active_;
    if (rate >= rate_before_ * kWorthwhile) {
      next_rest_ = 8;
      return active_;
    }
    rest_ = next_rest_;
    next_rest_ = std::min(next_rest_ * 2, kLongestRest);
    return change(-1);
  }
  const double starved = w.consumer_wait / w.seconds;
  const double busy = w.worker_busy / w.seconds;
  int wish = 0;
  if (starved > kStarved && busy > kBusy * active_ && active_ < most_ && rest_ == 0) wish = 1;
  if (starved < kStarved / 4 && active_ > 1 && busy < kIdle * (active_ - 1)) wish = -1;
  const bool again = wish != 0 && wish == wish_;
  wish_ = wish;
  if (!again) return active_;
  wish_ = 0;
  if (wish > 0) {
    rate_before_ = rate;
    trial_ = kTrialWindows;
  }
  return change(wish);
}

uint32_t Tuner::change(int by) noexcept {
  active_ = static_cast<uint32_t>(static_cast<int>(active_) + by);
  ++changes_;
  return active_;
}

}  // namespace gradring

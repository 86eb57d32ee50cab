#include "loader/tuner.h"

#include <algorithm>

namespace gradring {

namespace {

constexpr double kStarved = 0.05;  // of the time, the consumer waits
constexpr double kBusy = 0.7;      // of the active workers' time, they work
constexpr double kIdle = 0.6;      // of what one fewer could give, they work
constexpr double kGain = 1.03;     // one more must bring
constexpr double kLoss = 0.98;     // one fewer may cost
// The first window after a change still sees batches from before it.
constexpr int kTrialWindows = 3;
constexpr uint32_t kLongestRest = 512;

}  // namespace

int Tuner::wish(const TunerWindow& w) const noexcept {
  const double starved = w.consumer_wait / w.seconds;
  const double busy = w.worker_busy / w.seconds;
  const bool all_busy = busy > kBusy * active_;  // none is: so are all
  if (starved > kStarved && all_busy && active_ < most_ && up_.left == 0) return 1;
  if (active_ <= least_ || down_.left > 0) return 0;
  if (active_ == 1) return -1;
  return starved < kStarved / 4 && busy < kIdle * (active_ - 1) ? -1 : 0;
}

uint32_t Tuner::look(const TunerWindow& w) noexcept {
  if (w.seconds <= 0) return active_;
  const double rate = w.batches / w.seconds;
  if (up_.left > 0) --up_.left;
  if (down_.left > 0) --down_.left;
  if (tried_ != 0) return judge(rate);
  const int now = wish(w);
  const bool again = now != 0 && now == wish_;
  wish_ = now;
  const double before = (rate + last_rate_) / 2;
  last_rate_ = rate;
  if (!again) return active_;
  rate_before_ = before;
  tried_ = now;
  trial_ = kTrialWindows;
  trial_rate_ = 0;
  return change(now);
}

uint32_t Tuner::judge(double rate) noexcept {
  if (--trial_ < kTrialWindows - 1) trial_rate_ += rate / (kTrialWindows - 1);
  if (trial_ > 0) return active_;
  const int tried = tried_;
  tried_ = wish_ = 0;
  last_rate_ = rate;
  Rest& same = tried > 0 ? up_ : down_;
  if (trial_rate_ >= rate_before_ * (tried > 0 ? kGain : kLoss)) {
    same.next = 8;
    // Nobody goes straight back.
    Rest& other = tried > 0 ? down_ : up_;
    other.left = std::max(other.left, other.next);
    return active_;
  }
  same.left = same.next;
  same.next = std::min(same.next * 2, kLongestRest);
  return change(-tried);
}

uint32_t Tuner::change(int by) noexcept {
  active_ = static_cast<uint32_t>(static_cast<int>(active_) + by);
  ++changes_;
  return active_;
}

}  // namespace gradring

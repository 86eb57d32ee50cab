#include "loader/tuner.h"

#include <algorithm>
#include <utility>

namespace gradring {

namespace {

constexpr double kStarved = 0.05;  // the consumer starves if it waits for more than this part of the time
constexpr double kBusy = 0.7;      // the active workers are busy if they work for more than this part of their time
constexpr double kIdle = 0.6;  // one worker could be spared if the others, without it, would work for less than this
// A trial changes the number of workers or of batches ahead. These are ratios of the rate of batches during a trial to
// the rate before it.
constexpr double kGain = 1.03;  // the tuner keeps a larger value if the ratio is at least this
constexpr double kLoss = 0.98;  // the tuner keeps a smaller value if the ratio is at least this
constexpr double kFar = 0.75;   // a trial ends early if the ratio is below this
constexpr uint32_t kLongestRest = 512;
constexpr int kLately = 8;  // how many windows show whether batches take uneven time

}  // namespace

void Climber::pass() noexcept {
  if (up_.left > 0) --up_.left;
  if (down_.left > 0) --down_.left;
}

void Climber::attempt(int step, double rate) noexcept {
  other_ = value_;
  if (range_.doubling) {
    value_ = std::clamp(step > 0 ? value_ * 2 : value_ / 2, range_.least, range_.most);
  } else {
    value_ = static_cast<uint32_t>(static_cast<int>(value_) + step);
  }
  tried_ = step;
  back_ = false;
  left_ = range_.windows;
  rate_before_ = rate;
  rate_ = 0;
}

bool Climber::judge(double rate) noexcept {
  if (--left_ < range_.windows - 1) rate_ += rate / (range_.windows - 1);
  if (!back_ && left_ == range_.windows - 2 && rate < kFar * rate_before_) return end(false);
  if (left_ > 0) return false;
  const double least = tried_ > 0 ? kGain : kLoss;
  if (back_) return end(rate_tried_ >= rate_ * least);
  if (rate_ < rate_before_ * least) return end(false);
  rate_tried_ = rate_;
  rate_ = 0;
  back_ = true;
  left_ = range_.windows;
  std::swap(value_, other_);
  return true;
}

// True if the value changes by it.
bool Climber::end(bool good) noexcept {
  Rest& same = tried_ > 0 ? up_ : down_;
  Rest& other = tried_ > 0 ? down_ : up_;
  tried_ = 0;
  if (good) {
    same.next = 8;
    // The next trial in the other direction has to wait, because it would only go back.
    other.left = std::max(other.left, other.next);
  } else {
    same.left = same.next;
    same.next = std::min(same.next * 2, kLongestRest);
  }
  if (good != back_) return false;
  std::swap(value_, other_);
  return true;
}

Tuner::Tuner(const Start& start)
    : active_(start.active, {start.least_active, start.most_active, false, 3}),
      ahead_(start.ahead, {start.ahead, start.most_ahead, true, kLately + 1}),
      streaming_(0, {0, start.stores ? 1u : 0u, false, 3}),
      cores_(start.cores) {}

int Tuner::wish_active(const TunerWindow& w) const noexcept {
  const uint32_t active = active_.value();
  const double starved = w.consumer_wait / w.seconds;
  const double busy = w.worker_busy / w.seconds;
  const bool all_busy = busy > kBusy * active;  // also true if there is no worker
  if (starved > kStarved && all_busy && active_.may_rise()) return 1;
  if (!active_.may_fall()) return 0;
  if (active == 1 || active >= cores_) return -1;
  return starved < kStarved / 4 && busy < kIdle * (active - 1) ? -1 : 0;
}

int Tuner::wish_ahead() const noexcept {
  if (lately_.windows < kLately) return 0;
  if (lately_.starved > kStarved && lately_.busy < kBusy && ahead_.may_rise()) return 1;
  return ahead_.may_fall() ? -1 : 0;
}

int Tuner::wish_streaming() const noexcept {
  if (lately_.windows < 2) return 0;
  return streaming_.may_rise() ? 1 : streaming_.may_fall() ? -1 : 0;
}

void Tuner::remember(const TunerWindow& w) noexcept {
  lately_.windows = std::min(lately_.windows + 1, kLately);
  const double part = 1.0 / lately_.windows;
  const auto mean = [part](double* of, double now) { *of += (now - *of) * part; };
  mean(&lately_.rate, w.batches / w.seconds);
  mean(&lately_.starved, (w.consumer_wait - w.consumer_fill) / w.seconds);
  mean(&lately_.busy, w.worker_busy / w.seconds / std::max(active_.value(), 1u));
}

void Tuner::attempt(Climber* climber, int step, double rate) noexcept {
  climber->attempt(step, rate);
  ++changes_;
  wish_ = 0;
  lately_ = {};
}

void Tuner::look(const TunerWindow& w) noexcept {
  if (w.seconds <= 0) return;
  const double rate = w.batches / w.seconds;
  active_.pass();
  ahead_.pass();
  streaming_.pass();
  for (Climber* climber : {&active_, &ahead_, &streaming_}) {
    if (!climber->on_trial()) continue;
    if (climber->judge(rate)) ++changes_;
    if (!climber->on_trial()) last_rate_ = rate;
    return;
  }
  remember(w);
  const int wish = wish_active(w);
  const bool again = wish != 0 && wish == wish_;
  wish_ = wish;
  const double before = (rate + last_rate_) / 2;
  last_rate_ = rate;
  if (again) {
    attempt(&active_, wish, before);
  } else if (const int more = wish_ahead()) {
    attempt(&ahead_, more, lately_.rate);
  } else if (const int other = wish_streaming()) {
    attempt(&streaming_, other, before);
  }
}

}  // namespace gradring

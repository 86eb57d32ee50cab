// Tuner: finds out how many workers should be active, how many batches ahead they should fill, and which stores they should use,
// from how long the consumer and the workers waited for each other.
//
// It only computes with the numbers that it is given, so tests need no clock. It changes each of its numbers by trials: it tries
// another value for a few windows of time, then the old value again, and keeps the new value only if the rate of batches was
// better than both before and after. A larger value must raise the rate by 3 %; a smaller one may lower it by less than 2 %,
// because the core or the memory that it frees is worth more to the training. The return to the old value keeps a machine whose
// speed changes for other reasons from deciding a trial. After a trial that failed, the same trial has to wait, twice as long
// each time. One number is on trial at a time, and the number of workers comes first.
//
// It tries more workers when the consumer waits although the workers are busy, and fewer when they mostly wait for space. It also
// tries one worker fewer, however long anyone waits, where workers and consumer together are more than the cores: they then take
// each other's time, and one worker without a core delays the batch of which it owes a part. And it tries no worker instead of
// one, so that the consumer fills its batches itself: such a batch is already in the cache of the core that uses it. Only a trial
// shows whether one of these helps.
//
// It tries twice as many batches ahead when the consumer waits although the workers wait too: batches then take uneven time,
// which shows only over several windows. Otherwise it tries half as many from time to time, because batches that no cache holds
// cost time too.
//
// Now and then it tries the other kind of stores, ordinary ones or stores that bypass the caches. Where the consumer's core shares
// a cache with the worker's, ordinary stores hand the batch over in that cache. Where it does not, lines that are fetched from
// another core's cache cost several times as much as lines from memory. The system may move threads to other cores at any time,
// and only the rate shows which case it is.
#pragma once

#include <cstdint>

namespace gradring {

struct TunerWindow {
  double seconds = 0;        // the time in which the consumer waited and worked
  double consumer_wait = 0;  // seconds; also those in which it filled batches itself
  double worker_busy = 0;    // seconds, of all workers together
  double batches = 0;
  double consumer_fill = 0;  // the seconds of consumer_wait in which it filled batches
};

// A number that is changed by trials.
class Climber {
 public:
  struct Range {
    uint32_t least, most;
    bool doubling;  // if not, it changes by one
    int windows;    // how many windows each half of a trial takes; the first still has batches from before the change
  };

  Climber(uint32_t value, const Range& range) : value_(value), range_(range) {}

  uint32_t value() const noexcept { return value_; }
  bool on_trial() const noexcept { return tried_ != 0; }
  bool may_rise() const noexcept { return value_ < range_.most && up_.left == 0; }
  bool may_fall() const noexcept { return value_ > range_.least && down_.left == 0; }
  // Counts a window that has passed.
  void pass() noexcept;
  // Begins a trial, one step up (1) or down (-1). `rate` is the rate before the trial.
  void attempt(int step, double rate) noexcept;
  // Reports the rate of one more window of a trial. Returns true if that changed the value.
  bool judge(double rate) noexcept;

 private:
  // How many windows must pass before a direction is tried again, and how many after the next failed trial.
  struct Rest {
    uint32_t left = 0;
    uint32_t next = 8;
  };

  bool end(bool good) noexcept;

  uint32_t value_, other_ = 0;  // during a trial, the value that is not in use
  Range range_;
  int tried_ = 0;      // the step that is on trial; 0: none is
  bool back_ = false;  // whether the old value is being measured again
  int left_ = 0;       // windows until the trial is judged
  double rate_before_ = 0;
  double rate_tried_ = 0;
  double rate_ = 0;
  Rest up_, down_;
};

class Tuner {
 public:
  struct Start {
    uint32_t active, least_active, most_active;
    uint32_t ahead, most_ahead;
    uint32_t cores;  // how many cores the workers and the consumer share
    bool stores;     // whether stores around the caches may be tried
  };

  explicit Tuner(const Start& start);

  void look(const TunerWindow& window) noexcept;
  uint32_t active() const noexcept { return active_.value(); }
  uint32_t ahead() const noexcept { return ahead_.value(); }
  bool streaming() const noexcept { return streaming_.value() != 0; }
  uint32_t changes() const noexcept { return changes_; }

 private:
  // The means of the last windows since something changed.
  struct Lately {
    int windows = 0;
    double rate = 0, starved = 0, busy = 0;
  };

  int wish_active(const TunerWindow& window) const noexcept;
  int wish_ahead() const noexcept;
  int wish_streaming() const noexcept;
  void remember(const TunerWindow& window) noexcept;
  void attempt(Climber* climber, int step, double rate) noexcept;

  Climber active_;
  Climber ahead_;
  Climber streaming_;  // 0 or 1
  uint32_t cores_;
  int wish_ = 0;  // what the last window asked for: 1 more worker, 1 fewer (-1), or 0
  double last_rate_ = 0;
  Lately lately_;
  uint32_t changes_ = 0;
};

}  // namespace gradring

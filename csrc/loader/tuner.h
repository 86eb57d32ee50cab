// Tuner: how many workers should run, how many batches ahead, and by what stores, from who waited for whom.
//
// Pure arithmetic on what it is told, so that tests need no clock. Each of its numbers climbs by trials: another
// value is tried for a few windows, then the old one again, and the new one is kept if the rate of batches before and
// after both say so: more only if it raises the rate by 3 %, less if it costs under 2 % (the core, or the memory, is worth
// more to the trainer). So a machine that turns faster or slower meanwhile for reasons of its own does not decide. After a
// trial that failed the same one has to wait, twice as long each time. One number is on trial at a time, workers first.
//
// More workers are tried when the consumer waits although the workers are busy, fewer when they mostly wait for space.
// Whatever the waits, one fewer is tried where workers and consumer are more than the cores: they take each other's time,
// and a batch that is whole but for the share of a worker without a core is not there. So is none instead of one (0: the
// consumer fills its batches itself): a batch that is filled where it is used is in that core's cache. What either is
// worth only a trial can tell.
//
// More batches ahead, twice as many, are tried when the consumer waits although the workers wait too: then batches take
// uneven time, and it needs a longer look to see that. Half as many else, whatever the waits: what no cache holds any more
// costs time too.
//
// Stores around the caches are tried now and then, and then the others: where the consumer's core shares a cache with the
// worker's, a batch is handed over in it; where it does not, lines that are fetched from another cache cost several times
// what they cost from memory. Cores may change, and nothing but the rate tells.
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

struct TunerWindow {
  double seconds = 0;        // that the consumer waited and worked
  double consumer_wait = 0;  // seconds; also those in which it filled batches itself
  double worker_busy = 0;    // seconds, of all workers together
  double batches = 0;
  double consumer_fill = 0;  // seconds, of consumer_wait
};

// A number that is changed by trials.
class Climber {
 public:
  struct Range {
    uint32_t least, most;
    bool doubling;  // else by one
    int windows;    // that each half of a trial takes; the first still sees batches from before it
  };

  Climber(uint32_t value, const Range& range) : value_(value), range_(range) {}

  uint32_t value() const noexcept { return value_; }
  bool on_trial() const noexcept { return tried_ != 0; }
  bool may_rise() const noexcept { return value_ < range_.most && up_.left == 0; }
  bool may_fall() const noexcept { return value_ > range_.least && down_.left == 0; }
  // A window passed.
  void pass() noexcept;
  // Begins a trial, one step up (1) or down (-1). `rate`: of before.
  void attempt(int step, double rate) noexcept;
  // During a trial: the rate of one more window. True if that changed the value.
  bool judge(double rate) noexcept;

 private:
  // Whether a direction may be tried: windows until then, and how many the next failure costs.
  struct Rest {
    uint32_t left = 0;
    uint32_t next = 8;
  };

  bool end(bool good) noexcept;

  uint32_t value_, other_ = 0;  // the one that is not in use now: the new one or that of before
  Range range_;
  int tried_ = 0;      // the step that is on trial; 0: none is
  bool back_ = false;  // to the value of before, to see what it is worth now
  int left_ = 0;       // windows until it is judged
  double rate_before_ = 0;
  double rate_tried_ = 0;
  double rate_ = 0;
  Rest up_, down_;
};

class GRADRING_API Tuner {
 public:
  struct Start {
    uint32_t active, least_active, most_active;
    uint32_t ahead, most_ahead;
    uint32_t cores;  // for the workers and the consumer
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
  int wish_ = 0;  // for workers, of the last window
  double last_rate_ = 0;
  Lately lately_;
  uint32_t changes_ = 0;
};

}  // namespace gradring

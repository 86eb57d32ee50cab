// Tuner: how many workers should run, from who waited for whom. 0: none, the consumer fills its batches itself.
//
// Pure arithmetic on what it is told, so that tests need no clock. It climbs by trials: a number of workers is tried for
// a few windows and kept if the rate of batches says so, more workers only if they raise it by 3 %, fewer if they cost
// less than 2 % (the core is worth more to the trainer). More are tried when the consumer waits although the workers
// are busy, fewer when they mostly wait for space; and from one worker none, whatever the waits: a batch that is filled
// where it is used is in that core's cache, and what that is worth only a trial can tell. After a trial that failed the
// same one has to wait, twice as long each time.
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

struct TunerWindow {
  double seconds = 0;        // that the consumer waited and worked
  double consumer_wait = 0;  // seconds; also those in which it filled batches itself
  double worker_busy = 0;    // seconds, of all workers together
  double batches = 0;
};

class GRADRING_API Tuner {
 public:
  Tuner() = default;
  // least: 0 if the consumer may fill batches itself, else 1.
  Tuner(uint32_t active, uint32_t most, uint32_t least = 1) : active_(active), most_(most), least_(least) {}

  // Returns how many workers should be active from now on.
  uint32_t look(const TunerWindow& window) noexcept;
  uint32_t active() const noexcept { return active_; }
  uint32_t most() const noexcept { return most_; }
  uint32_t changes() const noexcept { return changes_; }

 private:
  // Whether a direction may be tried: windows until then, and how many the next failure costs.
  struct Rest {
    uint32_t left = 0;
    uint32_t next = 8;
  };

  uint32_t change(int by) noexcept;
  uint32_t judge(double rate) noexcept;
  int wish(const TunerWindow& window) const noexcept;

  uint32_t active_ = 1;
  uint32_t most_ = 1;
  uint32_t least_ = 1;
  int wish_ = 0;   // of the last window
  int tried_ = 0;  // the step that is on trial; 0: none is
  int trial_ = 0;  // windows until it is judged
  double rate_before_ = 0;
  double last_rate_ = 0;
  double trial_rate_ = 0;
  Rest up_;
  Rest down_;
  uint32_t changes_ = 0;
};

}  // namespace gradring

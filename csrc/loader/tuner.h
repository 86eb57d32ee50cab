// Tuner: how many workers should run, from who waited for whom.
//
// Pure arithmetic on what it is told, so that tests need no clock. The rule: if the consumer waits although the workers
// are busy, one more; if they mostly wait for space, one fewer (the core is worth more to the trainer). A step is
// taken only when two windows in a row ask for it; a step up that did not raise the rate by 3 % is taken back and
// not tried again for a while, which doubles each time.
#pragma once

#include <cstdint>

#include "gradring/export.h"

namespace gradring {

struct TunerWindow {
  double seconds = 0;
  double consumer_wait = 0;  // seconds
  double worker_busy = 0;    // seconds, of all workers together
  double batches = 0;
};

class GRADRING_API Tuner {
 public:
  Tuner() = default;
  Tuner(uint32_t active, uint32_t most) : active_(active), most_(most) {}

  // Returns how many workers should be active from now on.
  uint32_t look(const TunerWindow& window) noexcept;
  uint32_t active() const noexcept { return active_; }
  uint32_t most() const noexcept { return most_; }
  uint32_t changes() const noexcept { return changes_; }

 private:
  uint32_t change(int by) noexcept;

  uint32_t active_ = 1;
  uint32_t most_ = 1;
  int wish_ = 0;   // of the last window
  int trial_ = 0;  // windows until a step up is judged; 0: none is
  double rate_before_ = 0;
  uint32_t rest_ = 0;  // windows until the next step up
  uint32_t next_rest_ = 8;
  uint32_t changes_ = 0;
};

}  // namespace gradring

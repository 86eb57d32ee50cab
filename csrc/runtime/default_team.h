// The process-wide team that eager operations share.
//
// | variable | writer                        | readers | order                                | why                            |
// |----------|-------------------------------|---------|--------------------------------------|--------------------------------|
// | busy     | TeamLease, the fork handler   | same    | exchange acquire, store release      | guards team: one run at a time |
// | wanted   | set_default_lanes             | leases  | relaxed                              | a number that stands alone     |
//
// `team`, `team_size` and `done_alone` are plain variables, because only the thread that holds busy uses them.
#pragma once

#include <cstddef>

#include "gradring/export.h"
#include "runtime/team.h"

namespace gradring {

// How many lanes eager operations may use: usable_cores(), unless set. Throws Error outside [1, 256].
GRADRING_API int default_lanes() noexcept;
GRADRING_API void set_default_lanes(int lanes);

// The lane of a call that one lane makes without scratch memory. All threads share its team, which holds nothing.
GRADRING_API Lane lone_lane() noexcept;

// Borrows the shared team with at least this much scratch memory. If another thread holds the team, or if one lane is
// wanted, the lease gives this thread's own one-lane team instead: no thread ever waits here, and a forked child is never
// locked out.
class GRADRING_API TeamLease {
 public:
  TeamLease(int lanes, size_t bytes_per_lane, size_t shared_bytes);
  ~TeamLease();
  TeamLease(const TeamLease&) = delete;
  TeamLease& operator=(const TeamLease&) = delete;

  int lanes() const noexcept { return lanes_; }

  template <class Body>
  void run(Body&& body) noexcept {
    team_->run(lanes_, body);
  }

  // Runs a body without barriers, for which one lane alone would need about `nanoseconds`. A small body does not wake workers
  // that sleep, unless many come in a row, and the caller does not wait for a worker that is late.
  template <class Body>
  void run_each(double nanoseconds, Body&& body) noexcept {
    team_->run_each(worth_waking(nanoseconds) ? lanes_ : 1, body);
  }

 private:
  bool worth_waking(double nanoseconds) noexcept;

  Team* team_ = nullptr;
  int lanes_ = 1;
  bool shared_ = false;
};

}  // namespace gradring

// Failpoints: named places of a protocol where a test makes a rank die, stop or be late. They exist only in builds with
// GRADRING_FAILPOINTS (which GRADRING_TESTS turns on); in other builds they do nothing. A test in Python sets the variable
// GRADRING_FAILPOINT=PLACE,RANK,PASSES,SIGNAL instead: the rank sends itself the signal when it reaches the place, after it
// has passed there PASSES times.
//
// | variable         | writer  | readers            | order   | why                                                      |
// |------------------|---------|--------------------|---------|----------------------------------------------------------|
// | failpoint_action | a test  | ranks that pass it | relaxed | a test sets it before it starts the ranks that read it   |
#pragma once

#ifdef GRADRING_FAILPOINTS

#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace gradring {

using FailpointAction = void (*)(const char* place, int rank) noexcept;

// The action that GRADRING_FAILPOINT describes; null if the variable is not set.
inline FailpointAction failpoint_of_environment() noexcept {
  static struct {
    char place[32];
    int rank, passes, signal;
  } wish;
  const char* const text = std::getenv("GRADRING_FAILPOINT");
  if (!text || std::sscanf(text, "%31[^,],%d,%d,%d", wish.place, &wish.rank, &wish.passes, &wish.signal) != 4) {
    return nullptr;
  }
  return [](const char* place, int rank) noexcept {
    if (rank == wish.rank && std::strcmp(place, wish.place) == 0 && wish.passes-- == 0) raise(wish.signal);
  };
}

inline std::atomic<FailpointAction> failpoint_action{failpoint_of_environment()};
inline thread_local int failpoint_updater = -1;  // the rank whose update of the parameters this thread has begun

inline void failpoint(const char* place, int rank) noexcept {
  if (const FailpointAction action = failpoint_action.load(std::memory_order_relaxed)) action(place, rank);
}

// For code that knows no rank: a part of an update, in the thread that has begun it.
inline void begin_failpoints_of_update(int rank) noexcept { failpoint_updater = rank; }
inline void failpoint_of_update(const char* place) noexcept { failpoint(place, failpoint_updater); }

}  // namespace gradring

#else

namespace gradring {

inline void failpoint(const char*, int) noexcept {}
inline void begin_failpoints_of_update(int) noexcept {}
inline void failpoint_of_update(const char*) noexcept {}

}  // namespace gradring

#endif

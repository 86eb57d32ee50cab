// Failpoints: named places of a protocol where a test makes a rank die, stop or be late. They exist in builds with
// GRADRING_FAILPOINTS alone (which GRADRING_TESTS turns on); elsewhere they are nothing.
//
// | variable         | writer  | readers            | order   | why                                                      |
// |------------------|---------|--------------------|---------|----------------------------------------------------------|
// | failpoint_action | a test  | ranks that pass it | relaxed | a test sets it before it starts the ranks that read it   |
#pragma once

#ifdef GRADRING_FAILPOINTS

#include <atomic>

namespace gradring {

using FailpointAction = void (*)(const char* place, int rank) noexcept;
inline std::atomic<FailpointAction> failpoint_action{nullptr};

inline void failpoint(const char* place, int rank) noexcept {
  if (const FailpointAction action = failpoint_action.load(std::memory_order_relaxed)) action(place, rank);
}

}  // namespace gradring

#else

namespace gradring {

inline void failpoint(const char*, int) noexcept {}

}  // namespace gradring

#endif

// The one clock of every wait, deadline and account: CLOCK_MONOTONIC, Python's time.monotonic_ns and time.perf_counter_ns.
#pragma once

#include <chrono>
#include <cstdint>

namespace gradring {

using Clock = std::chrono::steady_clock;

inline int64_t monotonic_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace gradring

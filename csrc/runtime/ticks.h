// Ticks: the processor's own clock, which takes a few nanoseconds to read, so that every step can be timed. Its rate is constant
// on every processor that runs this code; a span of ticks divided by the same span of the steady clock is this rate.
#pragma once

#include <chrono>
#include <cstdint>

namespace gradring {

inline uint64_t ticks() noexcept {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t now;
  asm volatile("mrs %0, cntvct_el0" : "=r"(now));
  return now;
#else
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
}

}  // namespace gradring

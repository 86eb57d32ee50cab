// Ticks: the processor's own clock, a few nanoseconds to read, for accounts that stay on in every step. Its rate is
// constant on anything that runs this code, and is found by dividing by a span of the steady clock.
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

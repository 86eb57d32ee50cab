// Waiting: spin briefly, then yield, then futex, always with a deadline.
//
// | variable      | writer        | readers | order                      | why                                        |
// |---------------|---------------|---------|----------------------------|--------------------------------------------|
// | Signal::word_ | publish       | wait    | exchange release / acquire | what was written before publish is visible |
// | Signal::word_ | a waiter (CAS)| publish | acq_rel                    | sets the sleeper bit, so that publish wakes |
//
// A Signal is one 32-bit word: 31 bits of value and one bit that says that somebody sleeps. As both live in
// one word, no waiter can fall asleep after the publisher looked (no store-buffer race, no fence).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "gradring/export.h"

namespace gradring {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

inline constexpr Deadline kNoDeadline = Deadline::max();

inline Deadline deadline_in(std::chrono::nanoseconds span) noexcept { return Clock::now() + span; }

// Tells the core that this is a spin loop; not a yield to the system.
inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

enum class Scope : uint8_t { kThreads, kProcesses };  // kProcesses: the word lies in memory shared between processes

// futex(2). Returns false when the deadline passed; true on a wake, a signal or a changed word: look again.
GRADRING_API bool futex_wait(std::atomic<uint32_t>& word, uint32_t expected, Deadline deadline, Scope scope) noexcept;
GRADRING_API void futex_wake_all(std::atomic<uint32_t>& word, Scope scope) noexcept;

struct Patience {
  uint32_t spins = 300;   // pauses: a few microseconds
  uint32_t yields = 200;  // sched_yield: tens of microseconds if nobody else wants the core
};

class alignas(64) GRADRING_API Signal {
 public:
  explicit Signal(Scope scope = Scope::kThreads) noexcept : scope_(scope) {}
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  // The value last published; everything written before that publish is visible.
  uint32_t value() const noexcept { return word_.load(std::memory_order_acquire) >> 1; }

  // Stores value (31 bits) and wakes whoever sleeps.
  void publish(uint32_t value) noexcept {
    const uint32_t old = word_.exchange(value << 1, std::memory_order_acq_rel);
    if (old & kSleeper) futex_wake_all(word_, scope_);
  }

  // Waits until the value differs from `seen`; false if the deadline passed first.
  bool wait_change(uint32_t seen, Deadline deadline = kNoDeadline, Patience patience = {}) noexcept {
    for (uint32_t spin = 0; spin < patience.spins; ++spin) {
      if (value() != seen) return true;
      cpu_relax();
    }
    return wait_change_slowly(seen, deadline, patience);
  }

 private:
  static constexpr uint32_t kSleeper = 1;

  bool wait_change_slowly(uint32_t seen, Deadline deadline, Patience patience) noexcept;

  std::atomic<uint32_t> word_{0};
  Scope scope_;
};

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

}  // namespace gradring

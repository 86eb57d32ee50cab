// Lock: mutual exclusion in one word, for sections that take microseconds. Use it with std::lock_guard.
//
// | variable | writer         | readers | order                      | why                                                  |
// |----------|----------------|---------|----------------------------|------------------------------------------------------|
// | word_    | lock (CAS,     | same    | acquire, relaxed; release  | what the last holder wrote is visible to the next; a |
// |          | exchange),     |         | in unlock                  | failed attempt reads nothing                         |
// |          | unlock         |         |                            |                                                      |
//
// Its ancestor is Drepper's third mutex ("Futexes Are Tricky", 2004): the word also says whether a thread may sleep on it, so
// that unlock makes a system call only then.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

#include "runtime/wait.h"

namespace gradring {

class alignas(64) Lock {
 public:
  Lock() noexcept = default;
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

  void lock() noexcept {
    if (!try_lock()) lock_slowly();
  }

  bool try_lock() noexcept {
    uint32_t seen = kFree;
    return word_.compare_exchange_strong(seen, kHeld, std::memory_order_acquire, std::memory_order_relaxed);
  }

  void unlock() noexcept {
    if (word_.exchange(kFree, std::memory_order_release) == kAwaited) futex_wake_all(word_, Scope::kThreads);
  }

 private:
  static constexpr uint32_t kFree = 0, kHeld = 1, kAwaited = 2;

  void lock_slowly() noexcept {
    constexpr Patience kPatience{};
    for (uint32_t turn = 0; turn < kPatience.spins + kPatience.yields; ++turn) {
      if (turn < kPatience.spins) {
        cpu_relax();
      } else {
        sched_yield();
      }
      if (word_.load(std::memory_order_relaxed) == kFree && try_lock()) return;
    }
    // A thread that gets the lock here leaves it as awaited, because other threads may sleep.
    while (word_.exchange(kAwaited, std::memory_order_acquire) != kFree)
      futex_wait(word_, kAwaited, kNoDeadline, Scope::kThreads);
  }

  std::atomic<uint32_t> word_{kFree};
};

}  // namespace gradring

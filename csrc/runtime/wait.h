// Waiting: spin briefly, then yield, then futex, always with a deadline. Never spin without yielding.
//
// | variable      | writer         | readers | order             | why                                                |
// |---------------|----------------|---------|-------------------|----------------------------------------------------|
// | Signal::word_ | publish        | wait    | exchange acq_rel, | what was written before publish is visible         |
// |               |                |         | load acquire;     |                                                    |
// |               |                | sleeper | relaxed           | a hint                                             |
// | Signal::word_ | a waiter (CAS) | publish | acq_rel           | sets the sleeper bit, so that publish wakes        |
// | Signal::cpu_  | publish        | wait    | relaxed           | a hint: a publisher on this core needs the core    |
//
// A Signal is one 32-bit word: 31 bits of value, and one bit that says that a thread sleeps on it. Because both are in one word,
// no waiter can fall asleep after the publisher has looked for sleepers, and no fence is needed.
//
// Its ancestors: Reed and Kanodia's eventcounts ("Synchronization with Eventcounts and Sequencers", 1979), whose advance
// and await are publish and wait_reached; Drepper's mutex ("Futexes Are Tricky", 2004), whose one word also says whether a
// thread may sleep on it, so that a system call is made only where one does; and Karlin, Li, Manasse and Owicki ("Empirical
// Studies of Competitive Spinning for a Shared-Memory Multiprocessor", 1991) for spinning about as long as a sleep costs.
//
// cpu_ holds the number of the core that the publisher ran on last. Two threads that wait for each other by yielding can stay on
// one core for seconds while another core is idle, because the scheduler does not move threads that ran just now. A hand-over
// then costs microseconds instead of 40 ns. When a thread that sleeps is woken, the scheduler chooses its core again. So a
// waiter whose publisher ran last on the waiter's own core does not spin, and now and then sleeps at once.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>

#include "gradring/export.h"
#include "runtime/clock.h"

namespace gradring {

using Deadline = Clock::time_point;

inline constexpr Deadline kNoDeadline = Deadline::max();

inline Deadline deadline_in(std::chrono::nanoseconds span) noexcept { return Clock::now() + span; }

// Tells the processor that this is a spin loop. It does not yield to another thread.
inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

enum class Scope : uint8_t { kThreads, kProcesses };  // kProcesses: the word lies in memory shared between processes

inline int current_cpu() noexcept { return sched_getcpu(); }  // a load, where glibc registers rseq

// Sleeps while `word` is `expected`, see futex(2). Returns false if the deadline passed, and true after a wake-up, a signal or a
// change of the word: the caller must look at the word again.
bool futex_wait(std::atomic<uint32_t>& word, uint32_t expected, Deadline deadline, Scope scope) noexcept;
GRADRING_API void futex_wake_all(std::atomic<uint32_t>& word, Scope scope) noexcept;

struct Patience {
  uint32_t spins = 60;    // how many pauses: they take one or two microseconds
  uint32_t yields = 200;  // how many calls of sched_yield: about 100 microseconds if no other thread wants the core
};

class alignas(64) GRADRING_API Signal {
 public:
  explicit Signal(Scope scope = Scope::kThreads) noexcept : scope_(scope) {}
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  // The value that was published last. Everything that was written before it was published is visible.
  uint32_t value() const noexcept { return word_.load(std::memory_order_acquire) >> 1; }

  // Whether a thread slept on the signal a moment ago: publishing then takes a system call.
  bool sleeper() const noexcept { return word_.load(std::memory_order_relaxed) & kSleeper; }

  // Stores the value, of 31 bits, and wakes all threads that sleep on the signal.
  void publish(uint32_t value) noexcept {
    cpu_.store(current_cpu(), std::memory_order_relaxed);
    const uint32_t old = word_.exchange(value << 1, std::memory_order_acq_rel);
    if (old & kSleeper) futex_wake_all(word_, scope_);
  }

  // Waits until the value differs from `seen`. Returns false if the deadline passed first.
  bool wait_change(uint32_t seen, Deadline deadline = kNoDeadline, Patience patience = {}) noexcept {
    if (value() != seen) return true;
    if (cpu_.load(std::memory_order_relaxed) == current_cpu()) return wait_for_core(seen, deadline, patience);
    for (uint32_t spin = 0; spin < patience.spins; ++spin) {
      cpu_relax();
      if (value() != seen) return true;
    }
    return wait_change_slowly(seen, deadline, patience);
  }

  // Waits until a publisher that counts up has reached `target`: the value is `target`, or less than 2^30 beyond it. Returns false
  // if the deadline passed first.
  bool wait_reached(uint32_t target, Deadline deadline = kNoDeadline, Patience patience = {}) noexcept {
    for (;;) {
      const uint32_t now = value();
      if (((now - target) & kValueMask) < (1u << 30)) return true;
      if (!wait_change(now, deadline, patience)) return false;
    }
  }

  static constexpr uint32_t kValueMask = 0x7fffffff;

 private:
  static constexpr uint32_t kSleeper = 1;

  bool wait_for_core(uint32_t seen, Deadline deadline, Patience patience) noexcept;
  bool wait_change_slowly(uint32_t seen, Deadline deadline, Patience patience) noexcept;

  std::atomic<uint32_t> word_{0};
  std::atomic<int> cpu_{-1};
  Scope scope_;
};

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

}  // namespace gradring

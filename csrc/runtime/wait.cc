#include "runtime/wait.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>

namespace gradring {

namespace {

uint32_t* address_of(std::atomic<uint32_t>& word) noexcept { return reinterpret_cast<uint32_t*>(&word); }

int with_scope(int operation, Scope scope) noexcept {
  return scope == Scope::kThreads ? operation | FUTEX_PRIVATE_FLAG : operation;
}

}  // namespace

bool futex_wait(std::atomic<uint32_t>& word, uint32_t expected, Deadline deadline, Scope scope) noexcept {
  timespec relative{};
  timespec* timeout = nullptr;
  if (deadline != kNoDeadline) {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    relative.tv_sec = static_cast<time_t>(left / 1000000000);
    relative.tv_nsec = static_cast<long>(left % 1000000000);
    timeout = &relative;
  }
  syscall(SYS_futex, address_of(word), with_scope(FUTEX_WAIT, scope), expected, timeout, nullptr, 0);
  return deadline == kNoDeadline || Clock::now() < deadline;
}

void futex_wake_all(std::atomic<uint32_t>& word, Scope scope) noexcept {
  syscall(SYS_futex, address_of(word), with_scope(FUTEX_WAKE, scope), INT_MAX, nullptr, nullptr, 0);
}

// Waits if the publisher ran last on this thread's own core, and may need that core to continue. The thread yields a
// few times, which is cheap, and then sleeps. Now and then it sleeps at once, which lets the scheduler move one of the
// two to another core.
bool Signal::wait_for_core(uint32_t seen, Deadline deadline, Patience patience) noexcept {
  constexpr uint32_t kYields = 4;
  constexpr uint32_t kSleepEvery = 32;
  thread_local uint32_t waits = 0;
  const bool sleep = ++waits % kSleepEvery == 0;
  patience.yields = sleep ? 0 : std::min(patience.yields, kYields);
  return wait_change_slowly(seen, deadline, patience);
}

bool Signal::wait_change_slowly(uint32_t seen, Deadline deadline, Patience patience) noexcept {
  for (uint32_t turn = 0; turn < patience.yields; ++turn) {
    sched_yield();
    for (int look = 0; look < 8; ++look) {
      if (value() != seen) return true;
      cpu_relax();
    }
    // Check the deadline in every turn, because another thread on this core can make each turn last a time slice.
    if (deadline != kNoDeadline && Clock::now() >= deadline) return false;
  }
  for (;;) {
    uint32_t word = word_.load(std::memory_order_acquire);
    if ((word >> 1) != seen) return true;
    if (!(word & kSleeper) &&
        !word_.compare_exchange_strong(word, word | kSleeper, std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    if (!futex_wait(word_, (seen << 1) | kSleeper, deadline, scope_)) return value() != seen;
  }
}

}  // namespace gradring

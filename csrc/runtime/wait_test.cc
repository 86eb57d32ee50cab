#include "runtime/wait.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "runtime/arena.h"

using gradring::Clock;
using gradring::deadline_in;
using gradring::futex_wait;
using gradring::futex_wake_all;
using gradring::kNoDeadline;
using gradring::Patience;
using gradring::Scope;
using gradring::SharedArena;
using gradring::Signal;
using namespace std::chrono_literals;

namespace {

constexpr Patience kSleepAtOnce{0, 0};

}  // namespace

TEST_CASE("futex_wait ends on a changed word, a deadline and a wake") {
  std::atomic<uint32_t> word{5};
  CHECK(futex_wait(word, 4, kNoDeadline, Scope::kThreads));
  CHECK_FALSE(futex_wait(word, 5, Clock::now() - 1ms, Scope::kThreads));
  const auto begin = Clock::now();
  CHECK_FALSE(futex_wait(word, 5, deadline_in(30ms), Scope::kThreads));
  CHECK(Clock::now() - begin >= 30ms);
  std::thread waker([&] {
    std::this_thread::sleep_for(10ms);
    word.store(6, std::memory_order_release);
    futex_wake_all(word, Scope::kThreads);
  });
  while (word.load(std::memory_order_acquire) == 5) futex_wait(word, 5, deadline_in(60s), Scope::kThreads);
  waker.join();
}

TEST_CASE("the wait for a signal that no thread publishes ends at its deadline, however patient the waiter") {
  Signal signal;
  signal.publish(3);
  for (Patience patience : {Patience{}, kSleepAtOnce, Patience{10, 1000000000}}) {
    const auto begin = Clock::now();
    CHECK_FALSE(signal.wait_change(3, deadline_in(20ms), patience));
    CHECK(Clock::now() - begin >= 20ms);
    CHECK(signal.wait_change(2, deadline_in(20ms), patience));
  }
  CHECK_FALSE(signal.wait_reached(4, deadline_in(5ms)));
  CHECK(signal.wait_reached(3, deadline_in(5ms)));
  CHECK(signal.wait_reached(1, deadline_in(5ms)));
}

TEST_CASE("reached is counted around the wrap of 31 bits") {
  Signal signal;
  signal.publish(Signal::kValueMask);
  CHECK(signal.wait_reached(Signal::kValueMask - 5, deadline_in(1ms)));
  CHECK_FALSE(signal.wait_reached(0, deadline_in(1ms)));
  signal.publish(Signal::kValueMask + 1);
  CHECK(signal.value() == 0);
  CHECK(signal.wait_reached(Signal::kValueMask, deadline_in(1ms)));
  CHECK(signal.wait_reached(0, deadline_in(1ms)));
  CHECK_FALSE(signal.wait_reached(1, deadline_in(1ms)));
}

TEST_CASE("many waiters on one signal all wake, asleep or not, and see what was written before") {
  for (Patience patience : {Patience{}, kSleepAtOnce, Patience{0, 3}}) {
    Signal signal;
    int data = 0;  // plain: published by the signal
    constexpr uint32_t kRounds = 300;
    constexpr int kWaiters = 6;
    std::vector<Signal> seen(kWaiters);
    std::vector<std::thread> waiters;
    std::atomic<int> wrong{0};
    for (int i = 0; i < kWaiters; ++i) {
      waiters.emplace_back([&, i] {
        for (uint32_t round = 1; round <= kRounds; ++round) {
          signal.wait_reached(round, kNoDeadline, patience);
          if (data != static_cast<int>(round)) wrong.fetch_add(1, std::memory_order_relaxed);
          seen[static_cast<size_t>(i)].publish(round);
        }
      });
    }
    for (uint32_t round = 1; round <= kRounds; ++round) {
      data = static_cast<int>(round);
      signal.publish(round);
      for (auto& one : seen) one.wait_reached(round, kNoDeadline, patience);
    }
    for (auto& waiter : waiters) waiter.join();
    CHECK(wrong.load(std::memory_order_relaxed) == 0);
  }
}

TEST_CASE("signals work between processes, and a killed partner is a deadline, not a hang") {
  SharedArena arena(2 * sizeof(Signal));
  auto* ping = new (arena.data()) Signal(Scope::kProcesses);
  auto* pong = new (arena.data() + sizeof(Signal)) Signal(Scope::kProcesses);
  constexpr uint32_t kRounds = 500;
  const pid_t child = fork();
  if (child == 0) {
    for (uint32_t round = 1;; ++round) {
      if (!ping->wait_reached(round, deadline_in(60s), round % 2 ? kSleepAtOnce : Patience{})) _exit(1);
      pong->publish(round);
    }
  }
  bool answered = true;
  for (uint32_t round = 1; round <= kRounds && answered; ++round) {
    ping->publish(round);
    answered = pong->wait_reached(round, deadline_in(60s), round % 3 ? kSleepAtOnce : Patience{});
  }
  CHECK(answered);
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  ping->publish(kRounds + 1);
  CHECK_FALSE(pong->wait_reached(kRounds + 1, deadline_in(50ms)));
}

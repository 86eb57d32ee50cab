#include "runtime/lock.h"

#include <doctest/doctest.h>

#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace gradring {

namespace {

// Runs `body` on that many threads.
void all(int threads, const std::function<void()>& body) {
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) running.emplace_back(body);
  for (std::thread& thread : running) thread.join();
}

}  // namespace

TEST_CASE("the lock excludes") {
  Lock lock;
  int64_t count = 0;
  all(4, [&] {
    for (int i = 0; i < 5000; ++i) {
      const std::lock_guard<Lock> hold(lock);
      ++count;
    }
  });
  CHECK(count == 20000);
  CHECK(lock.try_lock());
  CHECK_FALSE(lock.try_lock());
  lock.unlock();
  CHECK(lock.try_lock());
}

TEST_CASE("waiters of the lock sleep, and all of them wake") {
  // A waiter has no deadline, so a lost wake-up hangs this test.
  constexpr int kWaiters = 3, kRounds = 10;
  Lock lock;
  int64_t count = 0;
  for (int round = 0; round < kRounds; ++round) {
    lock.lock();
    std::thread waiting([&] {
      all(kWaiters, [&] {
        const std::lock_guard<Lock> hold(lock);
        ++count;
      });
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long enough for waiters to sleep in the futex
    CHECK(count == round * kWaiters);
    lock.unlock();
    waiting.join();
    CHECK(count == (round + 1) * kWaiters);
  }
}

}  // namespace gradring

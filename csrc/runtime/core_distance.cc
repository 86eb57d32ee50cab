// | variable  | writer   | readers  | order             | why                                 |
// |-----------|----------|----------|-------------------|-------------------------------------|
// | Ball.ping | sender   | answerer | release / acquire | the orders of a real hand-over      |
// | Ball.pong | answerer | sender   | release / acquire | the same                            |
#include "runtime/core_distance.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>

#include "runtime/clock.h"
#include "runtime/wait.h"

namespace gradring {

namespace {

constexpr uint32_t kTrips = 2000;
constexpr int kPatience = 2000;  // reads of the word before a thread yields: another process may run on the other core

struct Ball {
  alignas(64) std::atomic<uint32_t> ping{0};
  alignas(64) std::atomic<uint32_t> pong{0};
};

void await(const std::atomic<uint32_t>& word, uint32_t value) noexcept {
  for (int looks = 0; word.load(std::memory_order_acquire) != value; ++looks) {
    if (looks % kPatience == kPatience - 1) sched_yield();
    cpu_relax();
  }
}

void stay_on(int core) noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(core), &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

}  // namespace

double core_round_trip() noexcept {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (sched_getaffinity(0, sizeof usable, &usable) != 0) return 0;
  std::array<int, 2> cores{};
  size_t found = 0;
  for (int core = 0; core < CPU_SETSIZE && found < 2; ++core) {
    if (CPU_ISSET(static_cast<size_t>(core), &usable)) cores[found++] = core;
  }
  if (found < 2) return 0;
  Ball ball;
  std::array<int64_t, kTrips> took{};
  try {
    std::thread answerer([&] {
      stay_on(cores[1]);
      for (uint32_t trip = 1; trip <= kTrips; ++trip) {
        await(ball.ping, trip);
        ball.pong.store(trip, std::memory_order_release);
      }
    });
    stay_on(cores[0]);
    for (uint32_t trip = 1; trip <= kTrips; ++trip) {
      const int64_t begin = monotonic_ns();
      ball.ping.store(trip, std::memory_order_release);
      await(ball.pong, trip);
      took[trip - 1] = monotonic_ns() - begin;
    }
    answerer.join();
    sched_setaffinity(0, sizeof usable, &usable);  // restores the caller's mask
  } catch (const std::system_error&) {
    return 0;
  }
  std::nth_element(took.begin(), took.begin() + kTrips / 2, took.end());
  return static_cast<double>(took[kTrips / 2]) * 1e-9;
}

}  // namespace gradring

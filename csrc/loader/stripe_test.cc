// Tests a ring in shared memory whose producer is a process that is killed at random moments.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "loader/ring.h"
#include "runtime/arena.h"

namespace gradring {

namespace {

constexpr uint32_t kCells = 3;
constexpr size_t kSlotWords = 512;

struct Lane3 {
  SharedArena arena{Ring<uint8_t>::bytes(kCells) + kCells * kSlotWords * sizeof(uint64_t)};
  Ring<uint8_t> ring{arena.data(), kCells, Scope::kProcesses};
  uint64_t* slot(uint64_t ticket) const {
    return reinterpret_cast<uint64_t*>(arena.data() + Ring<uint8_t>::bytes(kCells)) + ring.slot(ticket) * kSlotWords;
  }
};

pid_t start_producer(Lane3& stripe) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  for (;;) {
    const uint64_t ticket = stripe.ring.claim();
    if (stripe.ring.reserve(ticket) != RingWait::kReady) _exit(0);
    uint64_t* words = stripe.slot(ticket);
    for (size_t i = 0; i < kSlotWords; ++i) words[i] = ticket * kSlotWords + i;
    stripe.ring.commit(ticket);
  }
}

bool slot_is_right(const Lane3& stripe, uint64_t ticket) {
  const uint64_t* words = stripe.slot(ticket);
  for (size_t i = 0; i < kSlotWords; ++i) {
    if (words[i] != ticket * kSlotWords + i) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a producer process killed anywhere loses, doubles and damages nothing") {
  Lane3 stripe;
  stripe.ring.format();
  std::mt19937 random(std::random_device{}());
  uint64_t next = 0;
  for (int life = 0; life < 60; ++life) {
    const pid_t pid = start_producer(stripe);
    const uint64_t take = random() % 50;
    for (uint64_t i = 0; i < take; ++i) {
      REQUIRE(stripe.ring.await(next, deadline_in(std::chrono::seconds(20))) == RingWait::kReady);
      REQUIRE(slot_is_right(stripe, next));
      stripe.ring.release(next++);
    }
    usleep(random() % 300);
    kill(pid, SIGKILL);
    REQUIRE(waitpid(pid, nullptr, 0) == pid);
    const uint64_t resumed = stripe.ring.recover(next);
    CHECK(resumed >= next);
    CHECK(resumed <= next + kCells);
  }
  const pid_t pid = start_producer(stripe);
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(stripe.ring.await(next, deadline_in(std::chrono::seconds(20))) == RingWait::kReady);
    REQUIRE(slot_is_right(stripe, next));
    stripe.ring.release(next++);
  }
  stripe.ring.close();
  int status = -1;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status));
}

}  // namespace gradring

#include "runtime/team.h"

#include <doctest/doctest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "runtime/status.h"
#include "runtime/testing.h"

using gradring::Lane;
using gradring::Range;
using gradring::split;
using gradring::Team;
using gradring::testing::exit_of_child;
using gradring::testing::limit_address_space;

namespace gradring {
struct TeamTestAccess {
  static void set_sequence(Team& team, uint64_t sequence) {
    team.sequence_ = sequence;
    team.refresh_arrivals();
  }
  static void skip_ahead(Team& team, uint64_t by) { team.sequence_ += by; }
};
}  // namespace gradring

namespace {

// Each lane adds up what all lanes wrote before the barrier. Returns false if a barrier let a lane through too early.
bool barriers_hold(Team& team, int lanes, int rounds) {
  std::vector<int> written(static_cast<size_t>(team.lanes()), 0);
  std::vector<char> good(static_cast<size_t>(team.lanes()), 1);
  int ran = 0;
  team.run(lanes, [&](const Lane& lane) {
    const auto own = static_cast<size_t>(lane.index);
    if (lane.index == 0) ran = lane.count;
    for (int round = 1; round <= rounds; ++round) {
      written[own] = round;
      lane.barrier();
      for (int i = 0; i < lane.count; ++i) {
        if (written[static_cast<size_t>(i)] != round) good[own] = 0;
      }
      lane.barrier();
    }
  });
  return ran == lanes && std::accumulate(good.begin(), good.end(), 0) == team.lanes();
}

int threads_of_this_process() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "Threads:") {
      int count = 0;
      status >> count;
      return count;
    }
  }
  return -1;
}

}  // namespace

TEST_CASE("every lane runs, and barriers separate what they write") {
  for (int lanes : {1, 2, 3, 8, 9, 17}) {
    Team team(lanes);
    for (int run = 0; run < 20; ++run) CHECK(barriers_hold(team, lanes, 20));
  }
}

TEST_CASE("runs of different widths take turns on one team") {
  Team team(12);
  for (int run = 0; run < 60; ++run) CHECK(barriers_hold(team, 1 + run * 7 % 12, run % 4));
}

TEST_CASE("forks and joins alone hand over and collect") {
  Team team(4);
  std::vector<int> values(4, 0);
  int start = 0;
  for (int run = 1; run <= 2000; ++run) {
    start = run;
    team.run(4, [&](const Lane& lane) { values[static_cast<size_t>(lane.index)] = start + lane.index; });
    for (int i = 0; i < 4; ++i) REQUIRE(values[static_cast<size_t>(i)] == run + i);
  }
}

TEST_CASE("sequence numbers may wrap, and lanes that slept long are not taken for ahead") {
  Team team(4);
  CHECK(barriers_hold(team, 4, 3));
  for (uint64_t near : {(uint64_t{1} << 30) - 5, (uint64_t{1} << 31) - 5, (uint64_t{1} << 32) - 5}) {
    gradring::TeamTestAccess::set_sequence(team, near);
    CHECK(barriers_hold(team, 4, 20));
  }
  for (int i = 0; i < 5; ++i) {
    gradring::TeamTestAccess::skip_ahead(team, (uint64_t{1} << 30) + 1);
    CHECK(barriers_hold(team, 2 + i % 3, 5));
  }
}

TEST_CASE("many teams at once, with more lanes than cores") {
  std::vector<std::thread> users;
  std::vector<int> good(4, 0);
  for (size_t user = 0; user < good.size(); ++user) {
    users.emplace_back([&, user] {
      Team team(6);
      int held = 0;
      for (int run = 0; run < 20; ++run) held += barriers_hold(team, 2 + run % 5, 10);
      good[user] = held;
    });
  }
  for (auto& user : users) user.join();
  for (int held : good) CHECK(held == 20);
}

TEST_CASE("no thread starts before a run needs one, and all end with the team") {
  const int before = threads_of_this_process();
  {
    Team team(3);
    team.run(1, [](const Lane&) {});
    CHECK(threads_of_this_process() == before);
    team.run(2, [](const Lane&) {});
    CHECK(threads_of_this_process() == before + 2);
  }
  CHECK(threads_of_this_process() == before);
}

TEST_CASE("each part runs once, by its worker or by the caller") {
  for (int lanes : {1, 2, 3, 8, 17}) {
    Team team(lanes);
    std::vector<int> times(static_cast<size_t>(lanes));
    for (int run = 1; run <= 300; ++run) {
      // In some runs the workers are awake, in others they sleep; the widths and the kinds of runs alternate.
      if (run % 50 == 0) usleep(2000);
      team.run_each(lanes, [&](const Lane& lane) {
        ++times[static_cast<size_t>(lane.index)];
        if (run % 7 == 0 && lane.index == lane.count - 1) usleep(50);
      });
      for (int i = 0; i < lanes; ++i) REQUIRE(times[static_cast<size_t>(i)] == run);
      if (run % 10 == 0) CHECK(barriers_hold(team, 1 + run / 10 % lanes, 2));
    }
  }
}

TEST_CASE("a worker that cannot come is not waited for") {
  Team team(2);
  const pthread_t caller = pthread_self();
  int by_caller = 0;
  for (int run = 0; run < 20000 && by_caller == 0; ++run) {
    if (run % 100 == 0) usleep(1000);  // the worker falls asleep in this time
    team.run_each(2, [&](const Lane& lane) {
      if (lane.index == 1 && pthread_equal(pthread_self(), caller)) ++by_caller;
    });
  }
  CHECK(by_caller > 0);
}

TEST_CASE("asleep tells whether a worker has to be woken") {
  Team team(2);
  CHECK(team.asleep(2));
  CHECK_FALSE(team.asleep(1));
  team.run(2, [](const Lane&) {});
  bool slept = false;
  for (int turn = 0; turn < 1000 && !slept; ++turn) {
    usleep(1000);
    slept = team.asleep(2);
  }
  CHECK(slept);
}

TEST_CASE("workers keep off the core of the caller, within the cores that the caller may use") {
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  Team team(2);
  cpu_set_t worker;
  const auto run = [&] {
    team.run(2, [&](const Lane& lane) {
      if (lane.index == 1) sched_getaffinity(0, sizeof worker, &worker);
    });
  };
  // The scheduler may move the caller while the test looks, so the test looks again.
  bool apart = CPU_COUNT(&all) < 2;
  for (int turn = 0; turn < 1000 && !apart; ++turn) {
    usleep(1000);
    const auto before = static_cast<size_t>(sched_getcpu());
    run();
    apart = !CPU_ISSET(before, &worker) && CPU_COUNT(&worker) > 0;
  }
  CHECK(apart);
  // The caller may use only one core. Each later core must become the worker's too, because the caller has moved
  // there.
  int visited = 0;
  for (size_t core = 0; core < CPU_SETSIZE && visited < 3; ++core) {
    if (!CPU_ISSET(core, &all)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    usleep(1000);  // the team waits a little before it places its workers again
    run();
    run();
    if (visited++ > 0) CHECK(CPU_EQUAL(&worker, &one));
  }
  sched_setaffinity(0, sizeof all, &all);
}

TEST_CASE("workers block signals but leave faults and profilers alone; the caller's mask stays") {
  Team team(2);
  sigset_t own, worker;
  pthread_sigmask(SIG_SETMASK, nullptr, &own);
  team.run(2, [&](const Lane& lane) {
    if (lane.index == 1) pthread_sigmask(SIG_SETMASK, nullptr, &worker);
  });
  for (int number : {SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGCHLD}) CHECK(sigismember(&worker, number) == 1);
  for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGPROF}) CHECK(sigismember(&worker, number) == 0);
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int number : {SIGINT, SIGTERM, SIGUSR1}) CHECK(sigismember(&own, number) == sigismember(&after, number));
}

TEST_CASE("a team used before fork works in the child, and in the parent afterwards" *
          doctest::skip(gradring::testing::kThreadSanitized)) {
  Team team(3);
  CHECK(barriers_hold(team, 3, 5));
  CHECK(exit_of_child([&] {
          if (!barriers_hold(team, 3, 5)) return 1;
          return exit_of_child([&] { return barriers_hold(team, 2, 5) ? 0 : 2; });
        }) == 0);
  CHECK(barriers_hold(team, 3, 5));
  CHECK(exit_of_child([&] {
          team.~Team();  // must not join threads that the child does not have
          return 0;
        }) == 0);
}

TEST_CASE("where the system refuses threads, the team goes on with those it got" *
          doctest::skip(gradring::testing::kSanitized)) {
  CHECK(exit_of_child([] {
          limit_address_space(size_t{40} << 20);
          Team team(64);
          team.run(64, [](const Lane&) {});
          if (team.lanes() >= 64 || team.lanes() < 1) return 1;
          return barriers_hold(team, team.lanes(), 5) ? 0 : 2;
        }) == 0);
}

TEST_CASE("scratch is aligned, apart for each lane, and grows") {
  Team team(3);
  for (size_t bytes : {size_t{1}, size_t{100}, size_t{5000}}) {
    team.reserve(bytes, 2 * bytes);
    CHECK(team.lane_scratch_bytes() >= bytes);
    team.run(3, [&](const Lane& lane) {
      auto* own = lane.scratch();
      for (size_t i = 0; i < bytes; ++i) own[i] = static_cast<std::byte>(lane.index + 1);
      if (lane.index == 0) lane.shared_scratch()[2 * bytes - 1] = std::byte{9};
    });
    std::vector<char> good(3, 0);
    team.run(3, [&](const Lane& lane) {
      const auto* own = lane.scratch();
      bool same = reinterpret_cast<uintptr_t>(own) % 64 == 0 && lane.shared_scratch()[2 * bytes - 1] == std::byte{9};
      for (size_t i = 0; i < bytes; ++i) same = same && own[i] == static_cast<std::byte>(lane.index + 1);
      good[static_cast<size_t>(lane.index)] = same;
    });
    CHECK(good == std::vector<char>{1, 1, 1});
  }
}

TEST_CASE("a team of no lanes or too many is refused") {
  for (int lanes : {0, -3, 257}) CHECK_THROWS_AS(Team{lanes}, gradring::Error);
}

TEST_CASE("split covers a range once, in order, in whole grains") {
  for (int64_t total : {0, 1, 7, 64, 1000}) {
    for (int64_t grain : {1, 8, 64}) {
      for (int count : {1, 2, 3, 7}) {
        int64_t next = 0;
        for (int index = 0; index < count; ++index) {
          const Range range = split(Lane{nullptr, index, count}, total, grain);
          CHECK(range.begin == next);
          CHECK((range.end == total || range.end % grain == 0));
          next = range.end;
        }
        CHECK(next == total);
      }
    }
  }
}

#include "runtime/default_team.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "runtime/status.h"
#include "runtime/testing.h"

using namespace gradring;

namespace {

// Whether `lanes` lanes of a lease write all of `size` numbers, each once, using scratch of their own.
bool covers(int lanes, int size) {
  TeamLease lease(lanes, 64, 64);
  std::vector<int> written(static_cast<size_t>(size));
  const auto body = [&](const Lane& lane) {
    *reinterpret_cast<int*>(lane.scratch()) = lane.index;
    const Range part = split(lane, size);
    for (int64_t i = part.begin; i < part.end; ++i) {
      written[static_cast<size_t>(i)] += *reinterpret_cast<int*>(lane.scratch()) == lane.index;
    }
  };
  lease.run(body);
  lease.run_each(1.0, body);
  lease.run_each(1e6, body);
  for (int times : written)
    if (times != 3) return false;
  return true;
}

struct RestoreLanes {
  int before = default_lanes();
  ~RestoreLanes() { set_default_lanes(before); }
};

}  // namespace

TEST_CASE("leases of any width cover the work, one after another and from many threads") {
  const RestoreLanes restore;
  for (int size : {1, 2, 5}) {
    set_default_lanes(size);
    for (int lanes : {1, 2, 3, 7}) CHECK(covers(lanes, 1000));
  }
  std::atomic<int> good{0};
  std::vector<std::thread> users;
  for (int user = 0; user < 4; ++user) {
    users.emplace_back([&] {
      for (int turn = 0; turn < 50; ++turn) good += covers(3, 100);
    });
  }
  for (auto& user : users) user.join();
  CHECK(good == 200);
}

TEST_CASE("while one lease holds the shared team, others have a lane of their own") {
  const RestoreLanes restore;
  set_default_lanes(2);
  TeamLease first(2, 0, 0);
  CHECK(first.lanes() == 2);
  TeamLease second(2, 0, 0);
  CHECK(second.lanes() == 1);
}

TEST_CASE("the lane without a team's threads is alone, and all threads may have it at once") {
  std::vector<std::thread> threads;
  std::atomic<int> sum{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&sum] {
      for (int k = 0; k < 1000; ++k) {
        const Lane lane = lone_lane();
        lane.barrier();
        const Range all = split(lane, 17, 4);
        sum.fetch_add(static_cast<int>(all.end - all.begin) + lane.index, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(sum.load(std::memory_order_relaxed) == 8 * 1000 * 17);
  CHECK(lone_lane().team->lane_scratch_bytes() == 0);
}

TEST_CASE("no lanes or too many are refused") {
  CHECK_THROWS_AS(set_default_lanes(0), Error);
  CHECK_THROWS_AS(set_default_lanes(257), Error);
}

TEST_CASE("where the system refuses threads, leases do the work with the lanes that it grants" *
          doctest::skip(testing::kSanitized)) {
  CHECK(testing::exit_of_child([] {
          set_default_lanes(64);
          testing::limit_address_space(size_t{40} << 20);
          int most = 0;
          {
            TeamLease lease(64, 64, 64);
            lease.run([&](const Lane& lane) {
              if (lane.index == 0) most = lane.count;
            });
          }
          if (most < 1 || most >= 64) return 1;
          return covers(64, 1000) && covers(64, 1000) && covers(1, 10) ? 0 : 2;
        }) == 0);
}

TEST_CASE("a forked child computes although another thread of its parent was replacing the team" *
          doctest::skip(testing::kSanitized)) {
  const RestoreLanes restore;
  std::atomic<bool> over{false};
  std::thread replacing([&] {
    for (int turn = 0; !over.load(std::memory_order_relaxed); ++turn) {
      set_default_lanes(2 + turn % 2);
      if (!covers(3, 100)) std::abort();
    }
  });
  for (int turn = 0; turn < 20; ++turn) CHECK(testing::exit_of_child([] { return covers(3, 100) ? 0 : 1; }) == 0);
  over.store(true, std::memory_order_relaxed);
  replacing.join();
}

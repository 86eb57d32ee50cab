#include "comm/thread_meeting.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <thread>
#include <vector>

#include "runtime/status.h"

namespace gradring {

namespace {

// Runs body(rank) for each rank on a thread of its own, between enter and leave.
template <class Body>
void run(ThreadMeetings& meetings, const Body& body) {
  meetings.enter();
  std::vector<std::thread> threads;
  for (int r = 0; r < meetings.size(); ++r) {
    threads.emplace_back([&, r] {
      body(meetings.of(r));
      meetings.leave(r);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

Brought number(double value) {
  Brought brought;
  brought.loss_sum = value;
  return brought;
}

// What a rank brings to a step, and whether it has a fault there. Every rank can compute it for any other.
double value_of(int rank, int step) { return 1000.0 * step + rank; }
bool faulty(int step) { return step % 7 == 3; }

}  // namespace

TEST_CASE("ranks read what all have brought, and write shared memory in turns without a race") {
  for (const int ranks : {1, 2, 3, 5}) {
    constexpr int kSteps = 300;
    ThreadMeetings meetings(ranks);
    // A plane for each rank, and parameters that exist once. ThreadSanitizer sees every access to them.
    std::vector<std::vector<double>> planes(static_cast<size_t>(ranks), std::vector<double>(16));
    std::vector<double> parameters(static_cast<size_t>(ranks));
    std::vector<int> wrong(static_cast<size_t>(ranks));
    run(meetings, [&](Meeting& meeting) {
      const int me = meeting.rank();
      int& bad = wrong[static_cast<size_t>(me)];
      for (int step = 0; step < kSteps; ++step) {
        double seen = 0;
        for (const double p : parameters) seen += p;  // a forward pass
        for (double& g : planes[static_cast<size_t>(me)]) g = seen + me + 1;
        Brought mine = number(value_of(me, step));
        if (faulty(step) && me == step % ranks) mine.fault = 1;
        bad += !meeting.meet(mine);
        bool fault = false;
        for (int r = 0; r < ranks; ++r) {
          bad += meeting.of(r).loss_sum != value_of(r, step);
          fault = fault || meeting.of(r).fault != 0;
        }
        bad += fault != faulty(step);
        bad += meeting.settle(!fault) != (fault ? Decision::kAbort : Decision::kCommit);
        bad += meeting.decision() != (fault ? Decision::kAbort : Decision::kCommit);
        if (fault) continue;
        double sum = 0;
        for (const auto& plane : planes) sum += plane[static_cast<size_t>(me)];
        parameters[static_cast<size_t>(me)] += 1e-9 * sum;
        bad += !meeting.finish();
      }
    });
    for (const int bad : wrong) CHECK(bad == 0);
    for (const double p : parameters) CHECK(p == parameters[0]);
    CHECK(!meetings.torn());
  }
}

TEST_CASE("several meetings of a step share one decision") {
  ThreadMeetings meetings(3);
  std::vector<int> wrong(3);
  run(meetings, [&](Meeting& meeting) {
    int& bad = wrong[static_cast<size_t>(meeting.rank())];
    for (int step = 0; step < 200; ++step) {
      bad += !meeting.meet(number(step));
      bad += meeting.decision() != Decision::kOpen;
      bad += !meeting.meet(number(step + 0.5));
      for (int r = 0; r < 3; ++r) bad += meeting.of(r).loss_sum != step + 0.5;
      bad += meeting.settle(true) != Decision::kCommit;
      bad += !meeting.finish();
    }
  });
  for (const int bad : wrong) CHECK(bad == 0);
}

TEST_CASE("a rank that leaves ends the meetings of the others, and no rank commits") {
  std::mt19937 random(7);
  for (int trial = 0; trial < 60; ++trial) {
    const int ranks = 2 + trial % 3;
    const int leaver = static_cast<int>(random() % static_cast<unsigned>(ranks)), last = static_cast<int>(random() % 5);
    ThreadMeetings meetings(ranks);
    std::vector<int> commits(static_cast<size_t>(ranks)), refused(static_cast<size_t>(ranks));
    run(meetings, [&](Meeting& meeting) {
      const auto me = static_cast<size_t>(meeting.rank());
      for (int step = 0; step < 10; ++step) {
        if (meeting.rank() == leaver && step == last) return;
        if (!meeting.meet(number(step))) {
          refused[me] += meeting.decision() == Decision::kAbort && !meeting.took_place();
          return;
        }
        if (meeting.settle(true) != Decision::kCommit) return;
        ++commits[me];
        if (!meeting.finish()) return;
      }
    });
    for (size_t r = 0; r < commits.size(); ++r) {
      CHECK(commits[r] == last);
      CHECK(refused[r] == (static_cast<int>(r) == leaver ? 0 : 1));
    }
    CHECK(!meetings.torn());
    // The ranks take part again, and continue.
    std::vector<int> good(static_cast<size_t>(ranks));
    run(meetings, [&](Meeting& meeting) {
      const auto me = static_cast<size_t>(meeting.rank());
      good[me] = meeting.meet(number(trial));
      for (int r = 0; r < ranks; ++r) good[me] = good[me] && meeting.of(r).loss_sum == trial;
      good[me] = good[me] && meeting.settle(true) == Decision::kCommit && meeting.finish();
    });
    for (const int each : good) CHECK(each == 1);
    CHECK(!meetings.torn());
  }
}

TEST_CASE("a rank that leaves inside an update leaves torn parameters behind, which replacing them mends") {
  ThreadMeetings meetings(2);
  std::vector<int> finished(2);
  run(meetings, [&](Meeting& meeting) {
    REQUIRE(meeting.meet({}));
    REQUIRE(meeting.settle(true) == Decision::kCommit);
    if (meeting.rank() == 1) return;
    finished[0] = meeting.finish() ? 1 : 2;
  });
  CHECK(finished[0] == 2);
  CHECK(meetings.torn());
  meetings.mend();
  CHECK(!meetings.torn());
}

TEST_CASE("the number of ranks has limits") {
  CHECK_THROWS_AS(ThreadMeetings(0), Error);
  CHECK_THROWS_AS(ThreadMeetings(257), Error);
  CHECK_NOTHROW(ThreadMeetings(256));
}

}  // namespace gradring

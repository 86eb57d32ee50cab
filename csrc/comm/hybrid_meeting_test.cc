#include "comm/hybrid_meeting.h"

#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "comm/testing.h"
#include "runtime/failpoint.h"
#include "runtime/status.h"

namespace gradring {

namespace {

using Outcome = RankMeeting::Outcome;
using std::chrono::milliseconds;

// One process of a test, which is a thread with a group of its own.
struct Process {
  HybridMeetings& meetings;
  Group& group;
  RankMeeting& ranks() const { return meetings.processes(); }

  // Calls body(meeting) for each replica on a thread of its own; the leader's is the calling one.
  void steps(const std::function<void(Meeting&)>& body) const {
    meetings.enter();
    std::vector<std::thread> threads;
    const auto each = [&](int replica) {
      body(meetings.of(replica));
      meetings.leave(replica);
    };
    for (int r = 1; r < meetings.replicas(); ++r) threads.emplace_back(each, r);
    each(0);
    for (std::thread& thread : threads) thread.join();
  }
};

void run(int processes, int replicas, const std::function<void(Process)>& body,
         std::chrono::nanoseconds timeout = std::chrono::seconds(30)) {
  auto groups = Group::of_threads(processes, timeout);
  std::vector<std::thread> threads;
  for (auto& group : groups) group->set_activity(Activity::kComputing, std::chrono::seconds(60));
  for (auto& group : groups) {
    threads.emplace_back([&body, replicas, own = std::move(group)]() mutable {
      Code code = Code::kOk;
      const auto ranks = RankMeeting::make(own, nullptr, &code);
      REQUIRE(ranks);
      const auto meetings = HybridMeetings::make(ranks, replicas, nullptr, &code);
      REQUIRE(meetings);
      body({*meetings, *own});
      own->close();
      own.reset();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void hurry(Group& group) { group.set_activity(Activity::kUnknown, {}); }

Brought number(double value) {
  Brought brought;
  brought.loss_sum = value;
  return brought;
}

std::shared_ptr<SharedRegion> common(Group& group, size_t bytes) {
  Code code = Code::kOk;
  auto region = group.share({bytes}, nullptr, &code);
  REQUIRE(region);
  return region;
}

bool faulty(int step) { return step % 7 == 3; }

}  // namespace

TEST_CASE("replicas of processes read what all have brought, and write shared memory in turns without a race") {
  for (const auto& [processes, replicas] : {std::pair{1, 1}, {1, 3}, {2, 1}, {2, 2}, {3, 2}, {2, 3}}) {
    constexpr int kSteps = 120;
    const int ranks = processes * replicas;
    std::vector<int> wrong(static_cast<size_t>(ranks));
    run(processes, replicas, [&](Process process) {
      const auto region = common(process.group, sizeof(double) * 17 * static_cast<size_t>(ranks));
      auto* const parameters = reinterpret_cast<double*>(region->at(0));
      double* const planes = parameters + ranks;
      for (int part = 0; part < 2; ++part) {  // two runs of the same meetings, with another kind of meeting in between
        process.ranks().bring(10 + process.ranks().rank(), false);
        process.steps([&](Meeting& meeting) {
          const int me = meeting.rank();
          int& bad = wrong[static_cast<size_t>(me)];
          bad += meeting.size() != ranks;
          for (int step = part * kSteps; step < (part + 1) * kSteps; ++step) {
            double seen = 0;
            for (int r = 0; r < ranks; ++r) seen += parameters[r];  // a forward pass
            for (int i = 0; i < 16; ++i) planes[me * 16 + i] = seen + me + 1;
            Brought mine = number(1000.0 * step + me);
            if (faulty(step) && me == step % ranks) mine.fault = 1;
            bad += !meeting.meet(mine) || !meeting.took_place() || meeting.decision() != Decision::kOpen;
            bool fault = false;
            for (int r = 0; r < ranks; ++r) {
              bad += meeting.of(r).loss_sum != 1000.0 * step + r;
              fault = fault || meeting.of(r).fault != 0;
            }
            bad += fault != faulty(step);
            bad += meeting.rows() != 10 * processes + processes * (processes - 1) / 2;
            const Decision wanted = fault ? Decision::kAbort : Decision::kCommit;
            if (!fault && step % 3 == 0) {  // a step whose second meeting decides
              bad += !meeting.meet(number(step + 0.5));
              for (int r = 0; r < ranks; ++r) bad += meeting.of(r).loss_sum != step + 0.5;
            }
            bad += meeting.settle(!fault) != wanted || meeting.decision() != wanted;
            if (fault) {
              if (meeting.rank() % replicas == 0) bad += process.ranks().culprit() != step % ranks / replicas;
              continue;
            }
            double sum = 0;
            for (int r = 0; r < ranks; ++r) sum += planes[r * 16 + me % 16];
            parameters[me] += 1e-9 * sum;
            bad += !meeting.finish();
          }
        });
        wrong[static_cast<size_t>(process.ranks().rank() * replicas)] +=
            process.ranks().torn() || process.ranks().meet_for(RankMeeting::kFirstOther, {}, 0) != Outcome::kMet;
      }
      for (int r = 0; r < ranks; ++r) CHECK(parameters[r] == parameters[0]);
      CHECK(parameters[0] > 0);
      process.ranks().meet_for(RankMeeting::kFirstOther, {}, 0);  // the others may still read
    });
    for (const int bad : wrong) CHECK(bad == 0);
  }
}

TEST_CASE(
    "a process that leaves inside an update leaves torn parameters to all replicas; behind its part, whole ones") {
  for (const bool inside : {true, false}) {
    std::vector<int> counted(4);
    run(2, 2, [&](Process process) {
      process.steps([&](Meeting& meeting) {
        bool good = meeting.meet({}) && meeting.settle(true) == Decision::kCommit;
        if (process.ranks().rank() == 1 && inside) return;
        counted[static_cast<size_t>(meeting.rank())] = good && meeting.finish();
      });
      if (process.ranks().rank() == 1) return;
      CHECK(process.ranks().torn() == inside);
      if (!inside) return;
      CHECK(process.ranks().outcome() == Outcome::kFailed);
      process.ranks().withdraw();
      CHECK(process.ranks().torn());
      process.ranks().mend();
      CHECK(!process.ranks().torn());
    });
    for (size_t r = 0; r < 2; ++r) CHECK(counted[r] == (inside ? 0 : 1));
  }
}

TEST_CASE("replicas whose leader has given up do not commit, and neither do those of the process that is late") {
  std::vector<int> refused(4), why(2);
  run(
      2, 2,
      [&](Process process) {
        const int me = process.ranks().rank();
        hurry(process.group);
        if (me == 1) std::this_thread::sleep_for(milliseconds(1500));
        process.steps([&](Meeting& meeting) {
          refused[static_cast<size_t>(meeting.rank())] = !meeting.meet({}) && !meeting.took_place();
        });
        why[static_cast<size_t>(me)] = process.ranks().outcome() == Outcome::kFailed && !process.ranks().torn();
      },
      milliseconds(300));
  for (const int one : refused) CHECK(one == 1);
  for (const int one : why) CHECK(one == 1);
}

namespace {

// Makes the leader of process 1 late at `place` by 1.5 s, in a meeting of two processes with two replicas, and returns what each
// replica's settle returned.
std::vector<Decision> late_at(bool publishes) {
  std::vector<Decision> decisions(4, Decision::kOpen);
  run(
      2, 2,
      [&](Process process) {
        const int me = process.ranks().rank();
        const auto late = [](const char* place, int rank) noexcept {
          if (rank == 1 && std::strcmp(place, "before publish") == 0) std::this_thread::sleep_for(milliseconds(1500));
        };
        process.ranks().meet_for(RankMeeting::kFirstOther, {}, 0);
        if (me == 0) failpoint_action.store(publishes ? +late : nullptr, std::memory_order_relaxed);
        process.ranks().meet_for(RankMeeting::kFirstOther, {}, 0);
        hurry(process.group);
        process.steps([&](Meeting& meeting) {
          auto& decision = decisions[static_cast<size_t>(meeting.rank())];
          if (!meeting.meet({}))
            decision = Decision::kAbort;
          else
            decision = meeting.settle(true);
          if (decision == Decision::kCommit) CHECK(meeting.finish());
        });
        CHECK(!process.ranks().torn());
        CHECK((process.ranks().outcome() == Outcome::kFailed) == publishes);
      },
      milliseconds(300));
  failpoint_action.store(nullptr, std::memory_order_relaxed);
  return decisions;
}

}  // namespace

TEST_CASE("a process that is late within a round finds the abort of the one that has given up") {
  for (const Decision one : late_at(true)) CHECK(one == Decision::kAbort);
  for (const Decision one : late_at(false)) CHECK(one == Decision::kCommit);
}

TEST_CASE("a replica that leaves ends the meetings of its process, which then tells the others") {
  for (const int leaver : {0, 1, 2}) {
    std::vector<int> commits(6), ends(6);
    run(2, 3, [&](Process process) {
      const int me = process.ranks().rank();
      process.steps([&](Meeting& meeting) {
        const auto rank = static_cast<size_t>(meeting.rank());
        for (int step = 0; step < 5; ++step) {
          if (me == 1 && meeting.rank() == 3 + leaver && step == 2) return;
          if (!meeting.meet(number(step))) {
            ends[rank] = 1;
            return;
          }
          if (meeting.settle(true) != Decision::kCommit) return;
          ++commits[rank];
          if (!meeting.finish()) return;
        }
      });
      if (me == 1) CHECK(process.ranks().stop(3) == Outcome::kStopped);
      CHECK(process.ranks().outcome() == Outcome::kStopped);
      CHECK(process.ranks().of(1).fault == 3);
      CHECK(!process.ranks().torn());
      // All can go on.
      int after = 0;
      process.steps([&](Meeting& meeting) {
        const bool good = meeting.meet(number(meeting.rank())) && meeting.settle(true) == Decision::kCommit;
        bool same = true;
        for (int r = 0; r < 6; ++r) same = same && meeting.of(r).loss_sum == r;
        if (meeting.finish() && good && same && meeting.rank() % 3 == 0) after = 1;
      });
      CHECK(after == 1);
      process.ranks().meet_for(RankMeeting::kFirstOther, {}, 0);
    });
    for (const int count : commits) CHECK(count == 2);
    for (int r = 0; r < 6; ++r) CHECK(ends[static_cast<size_t>(r)] == (r == 3 + leaver ? 0 : 1));
  }
}

TEST_CASE("too many ranks, or none, are refused") {
  for (auto& group : Group::of_threads(1, std::chrono::seconds(10))) {
    Code code = Code::kOk;
    const auto ranks = RankMeeting::make(group, nullptr, &code);
    CHECK_THROWS_AS(HybridMeetings::make(ranks, 0, nullptr, &code), Error);
    CHECK_THROWS_AS(HybridMeetings::make(ranks, 257, nullptr, &code), Error);
    group->close();
  }
}

}  // namespace gradring

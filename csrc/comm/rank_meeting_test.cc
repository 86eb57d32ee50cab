#include "comm/rank_meeting.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "comm/testing.h"
#include "runtime/failpoint.h"
#include "runtime/testing.h"

namespace gradring {

namespace {

using Outcome = RankMeeting::Outcome;
using std::chrono::milliseconds;

// Runs body(meeting, group) for each rank on a thread of its own. The others wait for a rank with patience, however short the
// timeout is, until it calls hurry.
void run(int ranks, const std::function<void(RankMeeting&, Group&)>& body,
         std::chrono::nanoseconds timeout = std::chrono::seconds(30)) {
  auto groups = Group::of_threads(ranks, timeout);
  std::vector<std::thread> threads;
  for (auto& group : groups) group->set_activity(Activity::kComputing, std::chrono::seconds(60));
  for (auto& group : groups) {
    threads.emplace_back([&body, own = std::move(group)]() mutable {
      Code code = Code::kOk;
      const auto meeting = RankMeeting::make(own, nullptr, &code);
      REQUIRE(code == Code::kOk);
      body(*meeting, *own);
      own->close();
      own.reset();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void hurry(Group& group) { group.set_activity(Activity::kUnknown, {}); }

// An arena that all ranks have in common.
std::shared_ptr<SharedArena> common(Group& group, size_t bytes) {
  Code code = Code::kOk;
  const auto region = group.share({bytes}, nullptr, &code);
  REQUIRE(region);
  return std::make_shared<SharedArena>(SharedArena::part_of(region->fd(), region->offset(0), region->bytes(0), region));
}

void barrier(Group& group) {
  Call call;
  call.agreement.kind = Collective::kBarrier;
  REQUIRE(group.run(call) == Code::kOk);
}

Brought number(double value) {
  Brought brought;
  brought.loss_sum = value;
  return brought;
}

}  // namespace

TEST_CASE("ranks of a group read what all have brought, and write what they share in turns") {
  for (const int ranks : {1, 2, 4}) {
    constexpr int kSteps = 200;
    std::vector<int> wrong(static_cast<size_t>(ranks));
    run(ranks, [&](RankMeeting& meeting, Group& group) {
      const int me = meeting.rank();
      int& bad = wrong[static_cast<size_t>(me)];
      Code code = Code::kOk;
      const auto region = group.share({sizeof(double) * static_cast<size_t>(ranks), size_t{3} << 20}, nullptr, &code);
      REQUIRE(region);
      SharedArena arena = SharedArena::part_of(region->fd(), region->offset(0), region->bytes(0), region);
      auto* const parameters = reinterpret_cast<double*>(arena.data());
      for (int step = 0; step < kSteps; ++step) {
        for (int r = 0; r < ranks; ++r) bad += parameters[r] != step;  // a forward pass
        meeting.bring(me + 1, false);
        Brought mine = number(1000.0 * step + me);
        bad += !meeting.meet(mine) || meeting.decision() != Decision::kOpen;
        for (int r = 0; r < ranks; ++r) bad += meeting.of(r).loss_sum != 1000.0 * step + r;
        bad += meeting.rows() != ranks * (ranks + 1) / 2;
        bad += meeting.settle(true) != Decision::kCommit;
        parameters[me] += 1;
        bad += !meeting.finish();
      }
      bad += meeting.torn();
    });
    for (const int bad : wrong) CHECK(bad == 0);
  }
}

TEST_CASE("a rank that comes too late does not commit, and can no longer reach the others' memory") {
  std::vector<double> kept(2);
  std::vector<int> refused(2);
  run(
      2,
      [&](RankMeeting& meeting, Group& group) {
        const int me = meeting.rank();
        const auto arena = common(group, 4096);
        meeting.hold(arena);
        auto* const values = reinterpret_cast<double*>(arena->data());
        if (me == 0) values[0] = 5;
        hurry(group);
        if (me == 1) std::this_thread::sleep_for(milliseconds(1500));
        refused[static_cast<size_t>(me)] = !meeting.meet({}) && meeting.outcome() == Outcome::kFailed;
        CHECK(!meeting.torn());
        if (me == 0) meeting.withdraw();
        if (me == 1) values[0] = 6;  // into the shared memory that rank 0 has left
        if (me == 0) std::this_thread::sleep_for(milliseconds(1500));
        kept[static_cast<size_t>(me)] = values[0];
      },
      milliseconds(300));
  CHECK(refused[0] == 1);
  CHECK(refused[1] == 1);
  CHECK(kept[0] == 5);
}

TEST_CASE("a rank that is late within a meeting, and finds that another one has given up, hears why") {
  std::vector<int> right(2);
  double kept = 0;
  run(
      2,
      [&](RankMeeting& meeting, Group& group) {
        const auto arena = common(group, 4096);
        meeting.hold(arena);
        auto* const values = reinterpret_cast<double*>(arena->data());
        const int me = meeting.rank();
        if (me == 0) values[0] = 5;
        barrier(group);
        if (me == 0) {
          failpoint_action.store(
              [](const char* place, int rank) noexcept {
                if (rank == 1 && std::strcmp(place, "before publish") == 0)
                  std::this_thread::sleep_for(milliseconds(1500));
              },
              std::memory_order_relaxed);
        }
        barrier(group);
        hurry(group);
        if (me == 0) {
          right[0] = !meeting.meet({}) && meeting.outcome() == Outcome::kFailed && !meeting.torn();
          meeting.withdraw();
          std::this_thread::sleep_for(milliseconds(2500));
          kept = values[0];
          return;
        }
        right[1] = meeting.meet({}) && meeting.settle(true) == Decision::kAbort &&
                   meeting.outcome() == Outcome::kFailed && meeting.code() == Code::kPeerStalled && !meeting.torn();
        meeting.withdraw();
        values[0] = 6;
      },
      milliseconds(300));
  failpoint_action.store(nullptr, std::memory_order_relaxed);
  CHECK(right[0] == 1);
  CHECK(right[1] == 1);
  CHECK(kept == 5);
}

TEST_CASE("no rank shares a region that others cannot reach, after another group has failed") {
  std::vector<int> right(2);
  run(2, [&](RankMeeting& meeting, Group& group) {
    Code code = Code::kOk;
    const auto part = group.split(0, meeting.rank(), nullptr, &code);
    REQUIRE(part);
    if (meeting.rank() == 1) {
      part->close();
    } else {
      Call call;
      call.agreement.kind = Collective::kBarrier;
      CHECK(part->run(call) == Code::kPeerDied);  // the arrays of this rank leave the common memory
    }
    const bool none = group.share({4096}, nullptr, &code) == nullptr;
    right[static_cast<size_t>(meeting.rank())] = none && code == Code::kOutOfMemory;
  });
  CHECK(right[0] == 1);
  CHECK(right[1] == 1);
}

TEST_CASE("the parameters of a rank are its own once its meeting is gone") {
  std::vector<double> found(2);
  std::vector<std::thread> threads;
  for (auto& group : Group::of_threads(2, std::chrono::seconds(60))) {
    threads.emplace_back([&found, group]() mutable {
      Code code = Code::kOk;
      auto meeting = RankMeeting::make(group, nullptr, &code);
      REQUIRE(meeting);
      const auto parameters = common(*group, 4096);
      meeting->hold_parameters(parameters);
      auto* const value = reinterpret_cast<double*>(parameters->data());
      const int me = group->rank();
      if (me == 0) *value = 5;
      barrier(*group);
      found[static_cast<size_t>(me)] = *value;
      meeting.reset();
      barrier(*group);
      *value += 1 + me;
      barrier(*group);
      found[static_cast<size_t>(me)] += *value;
      group->close();
      group.reset();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(found[0] == 5 + 6);
  CHECK(found[1] == 5 + 7);
}

TEST_CASE("parameters that cannot become private count as torn until they are" * doctest::skip(testing::kSanitized)) {
  run(1, [](RankMeeting& meeting, Group& group) {
    const auto arena = common(group, 4096);
    meeting.hold_parameters(arena);
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    const rlimit none{1, before.rlim_max};  // no further mapping
    REQUIRE(setrlimit(RLIMIT_AS, &none) == 0);
    meeting.withdraw();
    REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(meeting.torn());
    meeting.mend();
    CHECK(!meeting.torn());
  });
}

TEST_CASE("a rank that leaves inside an update leaves torn parameters behind; behind its part, whole ones") {
  for (const bool inside : {true, false}) {
    std::vector<int> counted(2);
    run(2, [&](RankMeeting& meeting, Group& group) {
      REQUIRE(meeting.meet({}));
      REQUIRE(meeting.settle(true) == Decision::kCommit);
      if (meeting.rank() == 1) {
        if (inside) return group.close();
        meeting.finish();
        return;
      }
      counted[0] = meeting.finish();
      if (!inside) return;
      CHECK(meeting.outcome() == Outcome::kFailed);
      CHECK(meeting.torn());
      meeting.withdraw();
      CHECK(meeting.torn());
      meeting.mend();
      CHECK(!meeting.torn());
    });
    CHECK(counted[0] == (inside ? 0 : 1));
  }
}

TEST_CASE("a rank that stops, has ended, or does something else is known to all") {
  run(3, [](RankMeeting& meeting, Group&) {
    const int me = meeting.rank();
    if (me == 1) {
      CHECK(meeting.stop(7) == Outcome::kStopped);
    } else {
      CHECK(!meeting.meet({}));
    }
    CHECK(meeting.outcome() == Outcome::kStopped);
    CHECK(meeting.culprit() == 1);
    CHECK(meeting.of(1).fault == 7);
    for (int round = 0; round < 3; ++round) {
      meeting.bring(0, me <= round);  // one rank more has ended in each round
      CHECK(meeting.meet({}) == (round < 2));
      if (round < 2) CHECK(meeting.settle(true) == Decision::kCommit);
      if (round < 2) CHECK(meeting.finish());
    }
    CHECK(meeting.all_ended());
    const uint32_t purpose = RankMeeting::kFirstOther + (me == 2 ? 1 : 0);
    CHECK(meeting.meet_for(purpose, number(me), 10 + me) == Outcome::kDifferent);
    CHECK(meeting.meet_for(RankMeeting::kFirstOther, number(me), 10 + me) == Outcome::kMet);
    for (int r = 0; r < 3; ++r) {
      CHECK(meeting.of(r).loss_sum == r);
      CHECK(meeting.rows_of(r) == 10 + r);
    }
    CHECK(!meeting.torn());
  });
}

TEST_CASE("an arena moves to another file and to private memory at the same address, with its bytes") {
  for (const size_t bytes : {size_t{100}, (size_t{2} << 20) + 4096 * 3}) {
    SharedArena arena(bytes);
    std::byte* const data = arena.data();
    for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 7);
    OwnSegment segment(OwnSegment::create());
    auto* const place = static_cast<std::byte*>(segment.allocate_words(bytes));
    uint64_t offset = 0;
    REQUIRE(segment.offset_of(place, bytes, &offset));
    arena.move_to(segment.fd(), offset, nullptr, true);
    CHECK(arena.data() == data);
    CHECK(std::memcmp(place, data, bytes) == 0);
    place[5] = std::byte{99};
    CHECK(data[5] == std::byte{99});
    REQUIRE(arena.make_private());
    place[5] = std::byte{1};
    CHECK(data[5] == std::byte{99});
    CHECK(data[bytes - 1] == static_cast<std::byte>((bytes - 1) * 7));
  }
}

}  // namespace gradring

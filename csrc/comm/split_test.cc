// Tests of the groups and regions that a group makes: when it makes them, and what happens where a rank cannot take part.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "comm/testing.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

TEST_CASE("split, share and meet come after the operations that were submitted before them") {
  for (int turn = 0; turn < 30; ++turn) {
    std::atomic<int> good{0};
    on_threads(2, [&](Group& group) {
      std::vector<float> x(3000, 1.f), y(20000, 1.f), z(3, 1.f);
      const CommOperand all(x.data(), 3000, 4);
      const Call reduce = reduce_call(all, all, Element::kFloat32, Reduction::kSum);
      std::vector<std::shared_ptr<Request>> requests;
      for (int i = 0; i < 3; ++i) requests.push_back(group.submit(reduce));
      if (turn % 2) {  // messages that end in another order than they begin in
        const bool sends = group.rank() == 0;
        requests.push_back(group.submit(message_to(1 - group.rank(), y.data(), 20000, sends)));
        requests.push_back(group.submit(message_to(1 - group.rank(), z.data(), 3, !sends)));
      }
      Code code = Code::kOk;
      std::byte mine[kInlineBytes] = {}, both[2 * kInlineBytes];
      uint32_t sequence = 0;
      if (turn % 3 == 0) {
        CHECK(group.split(0, 0, nullptr, &code) != nullptr);
      } else if (turn % 3 == 1) {
        CHECK(group.share({5000}, nullptr, &code) != nullptr);
      } else {
        code = group.meet(mine, both, &sequence, nullptr);
      }
      bool fine = code == Code::kOk;
      for (const auto& request : requests) fine = request->done() && request->code() == Code::kOk && fine;
      good.fetch_add(fine && x[2999] == 8.f, std::memory_order_relaxed);
    });
    REQUIRE(good.load(std::memory_order_relaxed) == 2);
  }
}

TEST_CASE("an interrupted split ends, and so do the operations for which it waits") {
  class Interrupted final : public Waiter {
   public:
    bool interrupted() noexcept override { return true; }
  } waiter;
  auto groups = Group::of_threads(2, seconds(60));
  groups[1]->set_activity(Activity::kComputing, seconds(60));
  const auto request = groups[0]->submit(barrier_call());
  Code code = Code::kOk;
  const Deadline begin = Clock::now();
  CHECK(groups[0]->split(0, 0, &waiter, &code) == nullptr);
  CHECK(code == Code::kInterrupted);
  CHECK(request->code() == Code::kInterrupted);
  CHECK(Clock::now() - begin < promised(seconds(1)));
}

TEST_CASE("a rank that cannot join a new group keeps all members from it, and the old group stays usable" *
          doctest::skip(kSanitized)) {
  for (const bool descriptors : {true, false}) {
    const auto statuses = in_processes(3, [&](Group& group) {
      rlimit before{};
      const auto kind = descriptors ? RLIMIT_NOFILE : RLIMIT_AS;
      if (getrlimit(kind, &before) != 0) return 1;
      const rlimit none{1, before.rlim_max};
      if (group.rank() == 1 && setrlimit(kind, &none) != 0) return 2;
      int refused = 0;
      Code code = Code::kOk;
      std::string text;
      try {
        (void)group.split(group.rank() == 2 ? 1 : 0, 0, nullptr, &code);
      } catch (const Error& error) {
        refused = error.code() == Code::kOutOfMemory;
        text = error.what();
      }
      if (setrlimit(kind, &before) != 0) return 3;
      if (refused != (group.rank() != 2) || code != Code::kOk) return 4;
      if (group.rank() == 0 && text.find("rank 1 cannot join") == std::string::npos) return 5;
      if (group.run(barrier_call()) != Code::kOk) return 6;
      const auto part = group.split(0, 0, nullptr, &code);  // with what rank 1 lacked
      return part && part->size() == 3 && part->run(barrier_call()) == Code::kOk ? 0 : 7;
    });
    for (const int status : statuses) CHECK(status == 0);
  }
}

TEST_CASE("members of a group learn at once that one of them cannot map it" * doctest::skip(kSanitized)) {
  const auto statuses = in_processes(3, [&](Group& group) {
    if (group.rank() == 2) return 0;  // no member
    uint64_t offset = 0;
    if (group.rank() == 0) offset = group.make_words(2);
    if (group.run(message_to(1 - group.rank(), &offset, 2, group.rank() == 0)) != Code::kOk) return 1;
    rlimit before{};
    if (getrlimit(RLIMIT_AS, &before) != 0) return 2;
    const rlimit none{1, before.rlim_max};
    if (group.rank() == 1 && setrlimit(RLIMIT_AS, &none) != 0) return 3;
    std::shared_ptr<Group> part;
    bool refused = false;
    try {
      part = group.join_words({0, 1}, offset);
    } catch (const Error& error) {
      refused = error.code() == Code::kOutOfMemory;
    }
    if (setrlimit(RLIMIT_AS, &before) != 0) return 4;
    if (group.rank() == 1) {
      usleep(3000000);  // this rank lives, and keeps its communicator
      return refused ? 0 : 5;
    }
    const Deadline begin = Clock::now();
    if (!part || part->run(barrier_call()) != Code::kPeerDied) return 6;
    return part->fault().failure.rank == 1 && Clock::now() - begin < promised(seconds(1)) ? 0 : 7;
  });
  for (const int status : statuses) CHECK(status == 0);
}

TEST_CASE("a forked child that drops its copies, or ends, frees and ends nothing of its parent" *
          doctest::skip(kThreadSanitized)) {
  auto groups = Group::of_threads(1, seconds(5));
  Code code = Code::kOk;
  auto part = groups[0]->split(0, 0, nullptr, &code);
  auto region = groups[0]->share({100}, nullptr, &code);
  REQUIRE(part != nullptr);
  REQUIRE(region != nullptr);
  CHECK(exit_of_child([&] {
          part.reset();
          region.reset();
          groups.clear();
          return 0;
        }) == 0);
  const size_t allocated = groups[0]->segments()->own.allocated();
  const auto next = groups[0]->split(0, 0, nullptr, &code);
  REQUIRE(next != nullptr);
  CHECK(groups[0]->segments()->own.allocated() > allocated);  // it has a block of its own
}

// Tests of several groups of the same ranks: what the failure of one does to the others, and to the arrays that they share.
//
// | variable  | writer         | readers        | order            | why                                        |
// |-----------|----------------|----------------|------------------|--------------------------------------------|
// | reached   | the held rank  | the other rank | release, acquire | the held rank is amid its operation        |
// | exposed   | rank 1         | the test       | release, acquire | rank 1 is about to publish its arrays      |
// | lost      | the other rank | the held rank  | release, acquire | the other rank's arrays have become private|
// | stop      | the test       | the writer     | release, acquire | the arrays have moved                      |
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "comm/testing.h"
#include "runtime/failpoint.h"
#include "runtime/testing.h"

using namespace gradring;
using namespace gradring::testing;

namespace {

// A rank's part of the world `all`, and of the group `half` of its first two ranks.
struct Ranks {
  explicit Ranks(std::chrono::nanoseconds timeout = seconds(20)) : all(Group::of_threads(3, timeout)), half(3) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < 3; ++rank) {
      threads.emplace_back([this, rank] {
        Code code = Code::kOk;
        half[rank] = all[rank]->split(rank < 2 ? 0 : -1, 0, nullptr, &code);
      });
    }
    for (auto& thread : threads) thread.join();
  }
  // Fails the world at one rank, which then loses the shared memory of its arrays.
  Code fail(size_t rank) {
    std::call_once(dropped, [this] { all[2].reset(); });
    return all[rank]->run(barrier_call());
  }
  std::vector<std::shared_ptr<Group>> all, half;
  std::once_flag dropped;
};

thread_local const char* held_at = nullptr;
std::atomic<bool> reached{false}, exposed{false}, lost{false};

void hold(const char* place, int rank) noexcept {
  if (rank == 1 && std::strcmp(place, "before publish") == 0) exposed.store(true, std::memory_order_release);
  if (!held_at || std::strcmp(place, held_at) != 0) return;
  held_at = nullptr;
  reached.store(true, std::memory_order_release);
  while (!lost.load(std::memory_order_acquire)) std::this_thread::yield();
}

constexpr int64_t kCount = 30000;

// Runs an operation of two ranks on arrays in segments. Rank r gives values of r + 1. Returns kInternal for a wrong result.
Code run_half(Group& group, Collective kind, bool submits = false) {
  const bool gathers = kind == Collective::kAllGather, scatters = kind == Collective::kReduceScatter;
  const bool sends = kind == Collective::kSend;
  const int64_t ins = scatters ? 2 * kCount : kCount, outs = gathers ? 2 * kCount : kCount;
  Memory in(group, static_cast<size_t>(ins) * 4, true), out(group, static_cast<size_t>(outs) * 4, true);
  std::fill(in.as<float>(), in.as<float>() + ins, static_cast<float>(group.rank() + 1));
  std::fill(out.as<float>(), out.as<float>() + outs, -1.f);
  const CommOperand x(in.as(), ins, 4);
  const bool in_place = kind == Collective::kBroadcast;
  Call call = call_of(kind, x, in_place ? x : CommOperand(out.as(), outs, 4), Element::kFloat32);
  if (kind == Collective::kBroadcast) call.agreement.root = 1;
  if (sends) {
    call.peer = 1 - group.rank();
    if (group.rank() == 0) call.agreement.kind = Collective::kReceive;
  }
  Code code;
  if (submits) {
    const auto request = group.submit(call);
    request->wait(kNoDeadline, nullptr);
    code = group.settle(*request);
  } else {
    code = group.run(call);
  }
  if (code != Code::kOk) return code;
  const float* const y = in_place ? in.as<float>() : out.as<float>();
  for (int64_t i = 0; i < outs; ++i) {
    const float right = kind == Collective::kAllReduce || scatters ? 3.f
                        : gathers                                  ? (i < kCount ? 1.f : 2.f)
                        : sends && group.rank() == 1               ? -1.f
                                                                   : 2.f;
    if (y[i] != right) return Code::kInternal;
  }
  return code;
}

constexpr Collective kKinds[] = {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                 Collective::kBroadcast, Collective::kSend};

}  // namespace

TEST_CASE("an operation amid which a rank's arrays leave the shared memory fails on every rank that they reached") {
  failpoint_action.store(hold, std::memory_order_relaxed);
  for (const Collective kind : kKinds) {
    for (const bool submits : {false, true}) {  // rank 1 waits itself, or its communicator's thread does
      Ranks ranks;
      reached.store(false, std::memory_order_relaxed);
      exposed.store(false, std::memory_order_relaxed);
      lost.store(false, std::memory_order_relaxed);
      Code first = Code::kOk, second = Code::kOk;
      std::thread zero([&] {
        held_at = kind == Collective::kSend ? "begin" : "after publish";
        first = run_half(*ranks.half[0], kind);
      });
      std::thread one([&] { second = run_half(*ranks.half[1], kind, submits); });
      while (!reached.load(std::memory_order_acquire) || !exposed.load(std::memory_order_acquire)) usleep(100);
      CHECK(ranks.fail(1) == Code::kPeerDied);
      lost.store(true, std::memory_order_release);
      zero.join();
      one.join();
      INFO(collective_name(kind), " ", submits);
      CHECK(first == Code::kPeerDied);
      CHECK(second == Code::kInterrupted);
      CHECK(ranks.half[0]->message(first, barrier_call()).find("another communicator failed") != std::string::npos);
      CHECK(ranks.half[1]->message(second, barrier_call()).find("this rank left") != std::string::npos);
      CHECK(ranks.half[0]->run(barrier_call()) == Code::kPeerDied);
    }
  }
  failpoint_action.store(nullptr, std::memory_order_relaxed);
}

TEST_CASE("operations that go on while another group of their ranks fails give right results or errors") {
  for (int turn = 0; turn < 6; ++turn) {
    Ranks ranks;
    // Memory for the arrays, which a rank cannot make any more once it has lost its segment, even if its thread starts late.
    for (size_t rank = 0; rank < 2; ++rank) const Memory before(*ranks.half[rank], size_t{32} * kCount, true);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        for (int i = 0; i < 2000; ++i) {
          const Code code = run_half(*ranks.half[rank], kKinds[static_cast<size_t>(i) % 5]);
          if (code == Code::kOk) continue;
          if (code != Code::kPeerDied && code != Code::kInterrupted) wrong.fetch_add(1, std::memory_order_relaxed);
          return;
        }
      });
      threads.emplace_back([&, rank] {
        if (ranks.all[rank]->run(barrier_call()) != Code::kPeerDied) wrong.fetch_add(1, std::memory_order_relaxed);
      });
    }
    usleep(static_cast<useconds_t>(3000 + 1777 * turn));
    ranks.all[2]->close();
    for (auto& thread : threads) thread.join();
    CHECK(wrong.load(std::memory_order_relaxed) == 0);
  }
}

TEST_CASE("an operation on arrays outside of segments goes on when another group of its ranks fails") {
  failpoint_action.store(hold, std::memory_order_relaxed);
  for (const Collective kind : kKinds) {
    for (const bool mixed : {false, true}) {  // the other rank's array lies in its segment
      Ranks ranks;
      const int64_t count = kind == Collective::kReduceScatter ? 2 * kCount : kCount;
      const auto outs = static_cast<size_t>(2 * kCount);
      const auto call_at = [&](size_t rank, std::byte* in, std::byte* out) {
        if (kind == Collective::kSend) return message_to(1 - static_cast<int>(rank), in, count, rank == 1);
        const CommOperand x(in, count, 4);
        const int64_t elements = kind == Collective::kReduceScatter ? count / 2
                                 : kind == Collective::kAllGather   ? count * 2
                                                                    : count;
        Call call =
            call_of(kind, x, kind == Collective::kBroadcast ? x : CommOperand(out, elements, 4), Element::kFloat32);
        if (kind == Collective::kBroadcast) call.agreement.root = 1;
        return call;
      };
      // Rank 1 loses its segment amid the operation. The message's staging memory is made by a message before.
      std::vector<Code> codes(2, Code::kInternal);
      std::vector<float> sums(2);
      const auto body = [&](size_t rank) {
        Group& group = *ranks.half[rank];
        Memory in(group, outs * 4, mixed && rank == 0), out(group, outs * 4, mixed && rank == 0);
        const auto reset = [&] {
          std::fill(in.as<float>(), in.as<float>() + outs, static_cast<float>(rank + 1));
          std::fill(out.as<float>(), out.as<float>() + outs, -1.f);
        };
        reset();
        if (group.run(call_at(rank, in.as(), out.as())) != Code::kOk) return;
        reset();
        if (rank == 1) held_at = kind == Collective::kSend ? "begin" : "after publish";
        codes[rank] = group.run(call_at(rank, in.as(), out.as()));
        const bool in_place = kind == Collective::kBroadcast || kind == Collective::kSend;
        sums[rank] = (in_place ? in : out).as<float>()[kCount - 1];
      };
      reached.store(false, std::memory_order_relaxed);
      lost.store(false, std::memory_order_relaxed);
      std::thread zero([&] { body(0); }), one([&] { body(1); });
      while (!reached.load(std::memory_order_acquire)) usleep(100);
      CHECK(ranks.fail(1) == Code::kPeerDied);
      lost.store(true, std::memory_order_release);
      zero.join();
      one.join();
      INFO(collective_name(kind), " ", mixed);
      for (size_t rank = 0; rank < 2; ++rank) {
        CHECK(codes[rank] == Code::kOk);
        const bool sums_up = kind == Collective::kAllReduce || kind == Collective::kReduceScatter;
        const float right = sums_up ? 3.f : kind == Collective::kAllGather ? 1.f : 2.f;
        CHECK(sums[rank] == right);
      }
    }
  }
  failpoint_action.store(nullptr, std::memory_order_relaxed);
}

TEST_CASE("a group that is in no operation stays usable when another group of its ranks fails") {
  for (const bool staged_before : {false, true}) {
    Ranks ranks;
    std::vector<Code> codes(2);
    std::vector<int> good(2);
    const auto on_both = [&](const std::function<void(size_t, Group&)>& body) {
      std::thread other([&] { body(1, *ranks.half[1]); });
      body(0, *ranks.half[0]);
      other.join();
    };
    const auto message = [&](size_t rank, Group& group) {
      std::vector<float> x(100000, rank == 1 ? 7.f : 0.f);
      codes[rank] = group.run(message_to(1 - group.rank(), x.data(), 100000, rank == 1));
      good[rank] = std::count(x.begin(), x.end(), 7.f) == 100000;
    };
    on_both([&](size_t rank, Group& group) { codes[rank] = run_half(group, Collective::kAllReduce); });
    if (staged_before) on_both(message);
    on_both([&](size_t rank, Group&) { CHECK(ranks.fail(rank) == Code::kPeerDied); });
    for (const Collective kind : kKinds) {
      if (kind == Collective::kSend && !staged_before) continue;
      on_both([&](size_t rank, Group& group) { codes[rank] = run_half(group, kind); });
      CHECK(codes[0] == Code::kOk);
      CHECK(codes[1] == Code::kOk);
    }
    on_both(message);
    if (staged_before) {
      CHECK(codes[0] == Code::kOk);
      CHECK(codes[1] == Code::kOk);
      CHECK(good[0] == 1);
    } else {  // staging memory cannot be made any more
      CHECK(codes[0] != Code::kOk);
      CHECK(codes[1] != Code::kOk);
    }
  }
}

TEST_CASE("a failure that only a submitted operation meets makes the arrays private, and so does a close") {
  for (const bool submitted : {true, false}) {
    auto groups = Group::of_threads(2, milliseconds(100));
    groups[1]->set_activity(Activity::kComputing, milliseconds(1));
    auto* const mine = static_cast<char*>(groups[0]->allocate(100000));
    std::memset(mine, 1, 100000);
    uint64_t offset = 0;
    REQUIRE(groups[0]->segments()->own.offset_of(mine, 100000, &offset));
    std::byte* const theirs = groups[1]->segments()->peers[0]->at(offset, 100000);
    REQUIRE(theirs != nullptr);
    if (submitted) {
      const auto request = groups[0]->submit(barrier_call());
      REQUIRE(request->wait(kNoDeadline, nullptr));
      CHECK(request->code() == Code::kPeerStalled);  // which no caller has settled
      theirs[5] = std::byte{9};
      CHECK(mine[5] == 1);
    } else {
      groups[1]->submit(barrier_call())->wait(kNoDeadline, nullptr);  // the other rank finds rank 0 stalled
    }
    groups[0]->close();
    theirs[6] = std::byte{9};
    CHECK(mine[6] == 1);
    groups[0]->segments()->own.free(mine);
  }
}

TEST_CASE("arrays lose nothing that a thread writes while they leave the shared memory") {
  OwnSegment own(OwnSegment::create());
  constexpr size_t kBytes = size_t{24} << 20;
  auto* const words = static_cast<uint32_t*>(own.allocate(kBytes));
  constexpr size_t kWords = kBytes / sizeof(uint32_t), kStep = 1024;  // a word per page
  std::memset(words, 0, kBytes);
  std::atomic<bool> stop{false};
  std::atomic<uint32_t> turns{0};
  std::thread writer([&] {
    uint32_t turn = 0;
    while (!stop.load(std::memory_order_acquire)) {
      ++turn;
      for (size_t i = 0; i < kWords; i += kStep) words[i] = turn;
      turns.store(turn, std::memory_order_release);
    }
  });
  while (turns.load(std::memory_order_acquire) < 3) usleep(100);
  CHECK(own.detach());
  stop.store(true, std::memory_order_release);
  writer.join();
  size_t old = 0;
  for (size_t i = 0; i < kWords; i += kStep) old += words[i] != turns.load(std::memory_order_relaxed);
  CHECK(old == 0);
  own.free(words);
}

TEST_CASE("a rank that closes is noticed in a round although another rank is late") {
  for (const int closes : {1, 2}) {
    auto groups = Group::of_threads(4, seconds(20));
    groups[static_cast<size_t>(closes)]->close();
    const Deadline begin = Clock::now();
    CHECK(groups[0]->run(barrier_call()) == Code::kPeerDied);
    CHECK(groups[0]->fault().failure.rank == closes);
    CHECK(Clock::now() - begin < promised(seconds(1)));
  }
}

TEST_CASE("segments that cannot be made keep no descriptor") {
  const auto opened = [] {
    int count = 0;
    for (int fd = 0; fd < 256; ++fd) count += fcntl(fd, F_GETFD) >= 0;
    return count;
  };
  const int before = opened();
  const int wrong = dup(0), peer = OwnSegment::create();
  CHECK_THROWS_AS(Segments(wrong, 0, {-1, peer}), Error);
  CHECK(opened() == before);
}
